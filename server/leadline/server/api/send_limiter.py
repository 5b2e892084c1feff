"""Lets a few of many streams send at a time, so that other calls are answered in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# As many as keep the connections busy. A thousand watchers of one job send at
# the same moment, and each that sends adds to how long a health check waits.
_WIDTH = 8

# A stream whose caller does not read must not hold up those whose callers do.
_PATIENCE_SECONDS = 0.02

# About how long the end of a stream keeps the server busy.
_END_SECONDS = 0.002


class SendLimiter:
    """Streams pass it in the order of their coming, a few at a time."""

    def __init__(self, *, width: int = _WIDTH, patience: float = _PATIENCE_SECONDS) -> None:
        """Makes one.

        Args:
            width: streams that may send at a time.
            patience: seconds after which one that still sends counts no more.
        """
        self._places = asyncio.Semaphore(width)
        self._patience = patience

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Around the sending of one message."""
        await self._places.acquire()
        held = _Held(self._places)
        timer = asyncio.get_running_loop().call_later(self._patience, held.release)
        try:
            yield
        finally:
            timer.cancel()
            held.release()

    async def wait_to_close(self) -> None:
        """Waits until the stream may end, which takes the place of a message."""
        await self._places.acquire()
        asyncio.get_running_loop().call_later(_END_SECONDS, self._places.release)


class _Held:
    """A place that is given back once, by whoever is first."""

    __slots__ = ("_places",)

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places: asyncio.Semaphore | None = places

    def release(self) -> None:
        if self._places is not None:
            self._places.release()
            self._places = None
