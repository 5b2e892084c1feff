"""Limits how many streams work at a time, so that the event loop serves other calls."""

import asyncio
from collections import deque

# Streams that continue in one pass of the event loop, each for about 0.1 milliseconds. A
# thousand watchers of one job may begin, send or end at the same time, while a health check
# needs half a dozen passes.
_STREAMS_A_PASS = 4


class SendLimiter:
    """Lets streams begin, send a message or end, in order of arrival.

    A stream does not hold its turn, so a caller that does not read delays no other.
    """

    def __init__(self, *, streams_a_pass: int = _STREAMS_A_PASS) -> None:
        """Makes a limiter with this many turns in a pass of the event loop."""
        self._streams_a_pass = streams_a_pass
        self._left = streams_a_pass
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def turn(self) -> None:
        """Waits for the stream's turn."""
        if self._left == self._streams_a_pass:
            asyncio.get_running_loop().call_soon(self._next_pass)
        if self._left and not self._waiting:
            self._left -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        await place

    def _next_pass(self) -> None:
        self._left = self._streams_a_pass
        while self._waiting and self._left:
            place = self._waiting.popleft()
            if not place.done():  # its stream was not cancelled
                place.set_result(None)
                self._left -= 1
        if self._left < self._streams_a_pass:
            asyncio.get_running_loop().call_soon(self._next_pass)
