"""Answers to a stream of requests: in its order, a few in work at a time."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

from leadline.server.errors import UnavailableError

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class OrderedPipeline(Generic[Request, Answer]):
    """The answers to one stream.

    A request has a place from when it is read until its answer has left. There
    are few places, so a caller who takes no answers is not read on: what it
    sends waits with it, not here.
    """

    def __init__(
        self, answer: Callable[[Request], Coroutine[Any, Any, Answer]], *, max_in_flight: int
    ) -> None:
        """Makes them of what `answer` returns; `max_in_flight` requests are in flight at a time."""
        self._answer = answer
        self._slots = asyncio.Semaphore(max_in_flight)
        # In the order of the requests; None after the last.
        self._begun: asyncio.Queue[asyncio.Task[Answer] | None] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Answer]] = set()
        self._stopping = False

    async def responses(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Answer, None]:
        """The answers, each as soon as it and those before it are there.

        However it is left, nothing of it goes on.

        Raises:
            UnavailableError: `stop` was called; what had been read is answered.
            Exception: what `answer` or `requests` raises, after the answers to
                what was read before.
        """
        self._reader = asyncio.create_task(self._read(requests))
        # Not at the end of `_read`, which never runs where it is cancelled at once.
        self._reader.add_done_callback(lambda _: self._begun.put_nowait(None))
        if self._stopping:
            self._reader.cancel()
        try:
            while (task := await self._begun.get()) is not None:
                yield await task
                self._tasks.discard(task)
                self._slots.release()
            if self._stopping:
                raise UnavailableError(
                    "the server shuts down: send the messages that are not answered again"
                )
            await self._reader
        finally:
            await _end([self._reader, *self._tasks])

    def stop(self) -> None:
        """Has nothing more read: what was read is answered, then the answers end."""
        self._stopping = True
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self, requests: AsyncIterator[Request]) -> None:
        await self._slots.acquire()
        async for request in requests:
            task = asyncio.create_task(self._answer(request))
            self._tasks.add(task)
            self._begun.put_nowait(task)
            await self._slots.acquire()


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    # What they raise was either told or is about requests that nobody waits for.
    await asyncio.gather(*tasks, return_exceptions=True)
