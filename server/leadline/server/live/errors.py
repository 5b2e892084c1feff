"""Admission of the page's requests, and its error."""


class TooBusyError(Exception):
    """A limit of the page is reached; the message names it."""


class Admission:
    """Admits a bounded number of requests at a time, each for a `with` block."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._pending = 0

    def __enter__(self) -> None:
        if self._pending >= self._most:
            raise TooBusyError(f"{self._most} requests are in flight, which is the limit")
        self._pending += 1

    def __exit__(self, *_error: object) -> None:
        self._pending -= 1
