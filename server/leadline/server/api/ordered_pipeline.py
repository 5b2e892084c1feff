"""Answers a stream of requests in order, with a few in flight at a time."""

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
    sent. The next request is read only when a slot is free. This is backpressure
    on callers that read slowly.
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
        """Yields each response as soon as it and all earlier ones are ready.

        When the generator is closed, all tasks have ended.

        Raises:
            UnavailableError: `stop` was called; every request that was read has
                its response.
            Exception: an error of `respond` or `requests`, after the responses to
                earlier requests.
        """
        self._reader = asyncio.create_task(self._read(requests))
        # A callback, because `_read` never runs if it is cancelled at once.
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
            # The frames of its error hold the last message: a reference cycle would keep it.
            self._reader = None

    def stop(self) -> None:
        """Stops reading requests: the responses end after the last request that was read."""
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
        """Yields the responses to a stream: see `OrderedPipeline.responses`."""
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
    # The caller has received their errors, or nobody waits for them.
    await asyncio.gather(*tasks, return_exceptions=True)
