"""Events of a job or a sweep, across broken streams and restarts of the server."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty

from leadline.client._async.connection import AsyncConnection, Response
from leadline.client._cursor import AnyEvent, EventCursor
from leadline.client._deadline import Deadline
from leadline.client._errors import RpcError, UnavailableError
from leadline.client._grpc_errors import sdk_errors
from leadline.client._messages import is_final
from leadline.client._requests import duration
from leadline.client._retry import Attempts, OnReconnect, Reconnection
from leadline.client._runtime import AsyncEventCall, AsyncUnaryCall, async_sleep
from leadline.v1.job_pb2 import Job
from leadline.v1.sweep_pb2 import Sweep

AnyResource = TypeVar("AnyResource", bound=Job | Sweep)

AsyncPreparedCall: TypeAlias = tuple[AsyncUnaryCall[Any, Response], Any]
"""A method and its request."""


class AsyncCalls(NamedTuple, Generic[AnyResource, AnyEvent]):
    """The calls about one job or one sweep.

    Attributes:
        watch: opens a stream, from a sequence, a progress interval and its longest time in seconds.
    """

    get: AsyncPreparedCall[AnyResource]
    pause: AsyncPreparedCall[AnyResource]
    resume: AsyncPreparedCall[AnyResource]
    cancel: AsyncPreparedCall[AnyResource]
    delete: AsyncPreparedCall[Empty]
    watch: Callable[[int, Duration | None, float | None], AsyncEventCall[AnyEvent]]


class AsyncEventStream(Generic[AnyResource, AnyEvent]):
    """Follows one job or sweep until it has finished, over as many streams as that takes."""

    def __init__(
        self,
        connection: AsyncConnection,
        name: str,
        calls: AsyncCalls[AnyResource, AnyEvent],
        *,
        after_sequence: int,
        progress_interval: float | None,
        on_reconnect: OnReconnect | None,
        deadline: Deadline,
    ) -> None:
        self._connection = connection
        self._name = name
        self._calls = calls
        self._progress_interval = duration(progress_interval)
        self._cursor = EventCursor(
            name, after_sequence, with_progress=progress_interval is not None
        )
        self._reconnection = Reconnection(connection.reconnect_timeout, on_reconnect=on_reconnect)
        self._deadline = deadline

    async def events(self, call: AsyncEventCall[AnyEvent] | None = None) -> AsyncIterator[AnyEvent]:
        """The events in order, each durable one exactly once, the last of which is `finished`.

        Starts with `call` if a stream is open already.
        """
        while not self._cursor.finished:
            self._connection.check_open()
            call = call or self._attach()
            events = aiter(call)
            try:
                while (event := await self._next_event(events)) is not None:
                    yield event
                await self._check_end()
            except RpcError as error:
                await self._recover(error)
            finally:
                call.cancel()
            call = None

    def _attach(self) -> AsyncEventCall[AnyEvent]:
        self._reconnection.began()
        return self._calls.watch(
            self._cursor.sequence, self._progress_interval, self._deadline.remaining()
        )

    async def _next_event(self, events: AsyncIterator[AnyEvent]) -> AnyEvent | None:
        """The next event that the caller has not seen; None at the end of the stream."""
        with sdk_errors(self._connection):
            async for event in events:
                self._reconnection.heard()
                if self._cursor.accept(event):
                    return event
        return None

    async def _check_end(self) -> None:
        """Tells a stream that ended well from one that was cut without an error.

        Raises:
            UnavailableError: the stream ended before the last event.
        """
        if self._cursor.finished:
            return
        attempts = Attempts(self._deadline.at_most(self._connection.timeout))
        resource = await self._connection.call(*self._calls.get, attempts)
        if is_final(resource) and resource.latest_sequence <= self._cursor.sequence:
            self._cursor.finished = True
            return
        raise UnavailableError(f"the stream of {self._name} ended before its last event")

    async def _recover(self, error: RpcError) -> None:
        if self._cursor.finished:
            return
        self._connection.check_open()
        self._deadline.check()
        await async_sleep(self._deadline.at_most(self._reconnection.delay(error)))
        self._deadline.check()
