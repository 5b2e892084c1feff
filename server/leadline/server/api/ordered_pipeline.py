"""Responses to a stream of requests: in its order, a few in flight at a time."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from leadline.server.errors import UnavailableError

Request = TypeVar("Request")
Response = TypeVar("Response")


class OrderedPipeline(Generic[Request, Response]):
    """The responses to one stream.

    A request occupies a slot from when it is read until its response has been
    sent. This is backpressure: the next request is read only when a slot is free,
    so a caller that reads slowly is read slowly.
    """

    def __init__(
        self, respond: Callable[[Request], Coroutine[Any, Any, Response]], *, max_in_flight: int
    ) -> None:
        """Makes a pipeline that runs `respond` on `max_in_flight` requests at a time."""
        self._respond = respond
        self._slots = asyncio.Semaphore(max_in_flight)
        # In the order of the requests; None after the last.
        self._started: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Response]] = set()
        self._stopping = False

    async def responses(self, requests: AsyncIterator[Request]) -> AsyncGenerator[Response, None]:
        """The responses, each as soon as it and those before it are ready.

        All tasks have ended when the generator is closed.

        Raises:
            UnavailableError: `stop` was called; every request that was read has
                its response.
            Exception: what `respond` or `requests` raises, after the responses to
                the requests before.
        """
        self._reader = asyncio.create_task(self._read(requests))
        # Not at the end of `_read`, which never runs if it is cancelled at once.
        self._reader.add_done_callback(lambda _: self._started.put_nowait(None))
        if self._stopping:
            self._reader.cancel()
        try:
            while (task := await self._started.get()) is not None:
                yield await task
                self._tasks.discard(task)
                self._slots.release()
            if self._stopping:
                raise UnavailableError(
                    "the server shuts down: send the messages that are not answered again"
                )
            await self._reader
        finally:
            await _cancel([self._reader, *self._tasks])
            # Its error has frames that hold the last message: as a cycle it would stay.
            self._reader = None

    def stop(self) -> None:
        """Reads no more requests: the responses end after those that were read."""
        self._stopping = True
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self, requests: AsyncIterator[Request]) -> None:
        await self._slots.acquire()
        async for request in requests:
            task = asyncio.create_task(self._respond(request))
            self._tasks.add(task)
            self._started.put_nowait(task)
            await self._slots.acquire()


class PipelineGroup:
    """The pipelines of all open streams, which stop together when the server shuts down.

    Attributes:
        is_stopping: whether `stop` was called.
    """

    def __init__(self, *, max_in_flight: int) -> None:
        """Makes a group whose streams each have `max_in_flight` requests in flight."""
        self._max_in_flight = max_in_flight
        self._open: set[OrderedPipeline[Any, Any]] = set()
        self.is_stopping = False

    async def responses(
        self,
        requests: AsyncIterator[Request],
        respond: Callable[[Request], Coroutine[Any, Any, Response]],
    ) -> AsyncGenerator[Response, None]:
        """The responses to a stream, as `OrderedPipeline.responses` yields them."""
        pipeline = OrderedPipeline(respond, max_in_flight=self._max_in_flight)
        self._open.add(pipeline)
        if self.is_stopping:
            pipeline.stop()
        try:
            async with aclosing(pipeline.responses(requests)) as responses:
                async for response in responses:
                    yield response
        finally:
            self._open.discard(pipeline)

    def stop(self) -> None:
        """Stops all open streams, and those that open later."""
        self.is_stopping = True
        for pipeline in self._open:
            pipeline.stop()


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    # Their errors were raised to the caller already, or nobody waits for them.
    await asyncio.gather(*tasks, return_exceptions=True)
