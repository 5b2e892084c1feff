"""Lets few streams send at a time, so that the event loop serves other calls in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# Enough to keep the connections busy. A thousand watchers of one job send at
# the same moment, and each sender adds to the delay of a health check.
_SLOTS = 8

# A stream whose caller does not read must not block streams whose callers do.
_MAX_HOLD_SECONDS = 0.02

# About how long the end of a stream keeps the server busy.
_CLOSE_SECONDS = 0.002


class SendLimiter:
    """A few slots, which streams acquire in order of arrival to send a message or to close."""

    def __init__(self, *, slots: int = _SLOTS, max_hold: float = _MAX_HOLD_SECONDS) -> None:
        """Makes a limiter.

        Args:
            slots: streams that may send at a time.
            max_hold: seconds after which a slower sender no longer occupies a slot.
        """
        self._slots = asyncio.Semaphore(slots)
        self._max_hold = max_hold

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Context in which one message is sent."""
        await self._slots.acquire()
        held = _HeldSlot(self._slots)
        timer = asyncio.get_running_loop().call_later(self._max_hold, held.release)
        try:
            yield
        finally:
            timer.cancel()
            held.release()

    async def wait_to_close(self) -> None:
        """Waits until the stream may end, and occupies a slot while it does."""
        await self._slots.acquire()
        asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._slots.release)


class _HeldSlot:
    """A slot that is released once, by its sender or by the timer."""

    __slots__ = ("_slots",)

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots: asyncio.Semaphore | None = slots

    def release(self) -> None:
        if self._slots is not None:
            self._slots.release()
            self._slots = None
