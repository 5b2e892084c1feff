"""Until when a wait may last that is made of several calls."""

import time
from collections.abc import Callable

from leadline.client._errors import DeadlineExceededError


class Deadline:
    """A moment some seconds from now; without seconds, never."""

    def __init__(
        self, seconds: float | None, what: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begins to count.

        Args:
            seconds: until the moment; None: for ever.
            what: what has then not happened: "jobs/a has not ended".
            clock: gives seconds.
        """
        self._seconds = seconds
        self._what = what
        self._clock = clock
        self._began = clock()

    def remaining(self) -> float | None:
        """The seconds left, at least 0; None where there is no end to them."""
        if self._seconds is None:
            return None
        return max(0.0, self._began + self._seconds - self._clock())

    def at_most(self, seconds: float) -> float:
        """So many seconds, or those that are left where these are fewer."""
        remaining = self.remaining()
        return seconds if remaining is None else min(seconds, remaining)

    def check(self) -> None:
        """Passes while there is time.

        Raises:
            DeadlineExceededError: there is none left.
        """
        if self.remaining() == 0:
            raise DeadlineExceededError(f"{self._what} within {self._seconds:g} s")
