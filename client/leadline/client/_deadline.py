"""The deadline of a wait that takes several calls."""

import time
from collections.abc import Callable

from leadline.client._errors import DeadlineExceededError


class Deadline:
    """A moment some seconds from now, or never."""

    def __init__(
        self, seconds: float | None, what: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begins to count; `what` begins the text of the error: "jobs/a has not ended"."""
        self._seconds = seconds
        self._what = what
        self._clock = clock
        self._began = clock()

    def remaining(self) -> float | None:
        """The seconds left, at least 0; None without a limit."""
        if self._seconds is None:
            return None
        return max(0.0, self._began + self._seconds - self._clock())

    def at_most(self, seconds: float) -> float:
        """So many seconds, or the seconds left if these are fewer."""
        remaining = self.remaining()
        return seconds if remaining is None else min(seconds, remaining)

    def check(self) -> None:
        """Raises a `DeadlineExceededError` if no time is left."""
        if self.remaining() == 0:
            raise DeadlineExceededError(f"{self._what} within {self._seconds:g} s")
