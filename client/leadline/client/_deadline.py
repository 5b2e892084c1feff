"""The deadline of a wait that takes several calls."""

import time
from collections.abc import Callable

from leadline.client._errors import DeadlineExceededError


class Deadline:
    """A time limit that starts now; may be unlimited."""

    def __init__(
        self, seconds: float | None, what: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Starts the clock; `what` begins the error message: "jobs/a has not ended"."""
        self._seconds = seconds
        self._what = what
        self._clock = clock
        self._began = clock()

    def remaining(self) -> float | None:
        """The remaining seconds, at least 0; None without a limit."""
        if self._seconds is None:
            return None
        return max(0.0, self._began + self._seconds - self._clock())

    def at_most(self, seconds: float) -> float:
        """Returns `seconds`, or the remaining seconds if these are fewer."""
        remaining = self.remaining()
        return seconds if remaining is None else min(seconds, remaining)

    def check(self) -> None:
        """Raises a `DeadlineExceededError` if the time is over."""
        if self.remaining() == 0:
            raise DeadlineExceededError(f"{self._what} within {self._seconds:g} s")
