"""Submits a job or a sweep; a retry never creates a second one."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Generic

from leadline.client._async.connection import AsyncConnection
from leadline.client._cursor import AnyEvent
from leadline.client._errors import RpcError, UnavailableError
from leadline.client._grpc_errors import sdk_errors
from leadline.client._retry import Attempts
from leadline.client._runtime import AsyncStreamCall, async_cancel_after, async_sleep


class AsyncSubmittedCall(Generic[AnyEvent]):
    """The stream of an accepted job or sweep, including its first event, which `submit` has read.

    Attributes:
        queued: the first event.
    """

    def __init__(self, queued: AnyEvent, call: AsyncStreamCall[AnyEvent]) -> None:
        self.queued = queued
        self._call = call

    async def __aiter__(self) -> AsyncIterator[AnyEvent]:
        """Yields every event of the stream."""
        yield self.queued
        async for event in self._call:
            yield event

    def cancel(self) -> None:
        """Closes the stream; the job or sweep continues."""
        self._call.cancel()

    def add_done_callback(self, callback: Callable[..., None]) -> Any:
        """Calls `callback` when the stream has ended, like the method of gRPC's call."""
        return self._call.add_done_callback(callback)


async def submit(
    connection: AsyncConnection, attempt: Callable[[], AsyncStreamCall[AnyEvent]]
) -> AsyncSubmittedCall[AnyEvent]:
    """Opens the stream of the job or sweep that this or an earlier attempt created.

    Raises:
        RpcError: the server refused the request, or is unreachable.
    """
    attempts = Attempts(connection.timeout)
    while True:
        connection.check_open()
        call = attempt()
        try:
            return AsyncSubmittedCall(
                await _first_event(connection, call, attempts.remaining()), call
            )
        except RpcError as error:
            await async_sleep(attempts.delay(error))


async def _first_event(
    connection: AsyncConnection, call: AsyncStreamCall[AnyEvent], seconds: float
) -> AnyEvent:
    try:
        with sdk_errors(connection), async_cancel_after(call, seconds):
            return await anext(aiter(call))
    except StopAsyncIteration:
        raise UnavailableError("the stream ended before anything was accepted") from None
