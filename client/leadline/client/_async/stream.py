"""Follows the events of a job or a sweep across broken streams and server restarts."""

from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

from google.protobuf.duration_pb2 import Duration

from leadline.client._async.connection import AsyncConnection
from leadline.client._cursor import AnyEvent, EventCursor
from leadline.client._deadline import Deadline
from leadline.client._errors import RpcError, UnavailableError
from leadline.client._grpc_errors import sdk_errors
from leadline.client._messages import is_final
from leadline.client._requests import duration
from leadline.client._retry import Attempts, OnReconnect
from leadline.client._runtime import AsyncStreamCall, async_end_at_exit, async_sleep
from leadline.v1 import training_service_pb2
from leadline.v1.job_pb2 import Job
from leadline.v1.sweep_pb2 import Sweep

AnyResource = TypeVar("AnyResource", bound=Job | Sweep)


class AsyncCalls(Generic[AnyResource, AnyEvent]):
    """The calls about one job or one sweep; `kind` is "Job" or "Sweep", as in "PauseJob"."""

    def __init__(self, connection: AsyncConnection, kind: str, name: str) -> None:
        self._connection = connection
        self._kind = kind
        self._name = name

    async def call(self, verb: str, attempts: Attempts | None = None) -> AnyResource:
        """Calls "{verb}{kind}"; returns the job or the sweep, unless it is deleted."""
        method, request = self._prepare(verb)
        response: AnyResource = await self._connection.call(method, request, attempts)
        return response

    def watch(
        self, after_sequence: int, progress_interval: Duration | None, seconds: float | None
    ) -> AsyncStreamCall[AnyEvent]:
        """Opens a stream for at most `seconds`."""
        method, request = self._prepare(
            "Watch", after_sequence=after_sequence, progress_interval=progress_interval
        )
        call: AsyncStreamCall[AnyEvent] = method(request, timeout=seconds)
        return call

    def _prepare(self, verb: str, **fields: Any) -> tuple[Any, Any]:
        method = f"{verb}{self._kind}"
        request = getattr(training_service_pb2, f"{method}Request")(name=self._name, **fields)
        return getattr(self._connection.stubs.training, method), request


class AsyncEventStream(Generic[AnyResource, AnyEvent]):
    """Follows one job or sweep until it has finished; opens further streams if one breaks."""

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
        self._reconnection = connection.reconnection(on_reconnect)
        self._deadline = deadline

    async def events(
        self, call: AsyncStreamCall[AnyEvent] | None = None
    ) -> AsyncIterator[AnyEvent]:
        """Yields the events in order up to `finished`, each durable event exactly once.

        Starts with `call` if a stream is already open.
        """
        while not self._cursor.finished:
            self._connection.check_open()
            call = call or self._attach()
            events = aiter(call)
            try:
                while (event := await self._next_event(events)) is not None:
                    with async_end_at_exit(call):
                        yield event
                await self._check_end()
            except RpcError as error:
                await self._recover(error)
            finally:
                call.cancel()
            call = None

    def _attach(self) -> AsyncStreamCall[AnyEvent]:
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
        """Checks that a stream ended after its last event, and was not cut without an error.

        Raises:
            UnavailableError: the stream ended before the last event.
        """
        if self._cursor.finished:
            return
        attempts = Attempts(self._deadline.at_most(self._connection.timeout))
        resource = await self._calls.call("Get", attempts)
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
