"""Limits how much happens in one pass of the event loop, so that it serves other calls."""

import asyncio
from collections import deque


class PassLimiter:
    """Lets tasks continue in order of arrival, a few in each pass of the event loop.

    A health check needs half a dozen passes, and in each it waits for all tasks that continue. A
    task does not hold its turn, so one whose caller is slow delays no other.
    """

    def __init__(self, turns: int) -> None:
        """Makes a limiter with this many turns in a pass of the event loop."""
        self._turns = turns
        self._left = turns
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def turn(self) -> None:
        """Waits for the task's turn."""
        if self._left == self._turns:
            asyncio.get_running_loop().call_soon(self._next_pass)
        if self._left and not self._waiting:
            self._left -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        await place

    def _next_pass(self) -> None:
        self._left = self._turns
        while self._waiting and self._left:
            place = self._waiting.popleft()
            if not place.done():  # its task was not cancelled
                place.set_result(None)
                self._left -= 1
        if self._left < self._turns:
            asyncio.get_running_loop().call_soon(self._next_pass)
