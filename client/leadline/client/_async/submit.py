"""Submitting a job, so that trying again never makes a second one."""

from collections.abc import AsyncIterator

from leadline.client._async.connection import AsyncConnection
from leadline.client._errors import RpcError, UnavailableError
from leadline.client._grpc_errors import sdk_errors
from leadline.client._retry import Attempts
from leadline.client._runtime import AsyncEventCall, async_cancel_after, async_sleep
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.training_service_pb2 import TrainJobRequest


class AsyncSubmittedCall:
    """The stream of a job that was accepted: its first event has been read, and comes again.

    Attributes:
        queued: the first event.
    """

    def __init__(self, queued: JobEvent, call: AsyncEventCall) -> None:
        self.queued = queued
        self._call = call

    async def __aiter__(self) -> AsyncIterator[JobEvent]:
        """Every event of the stream."""
        yield self.queued
        async for event in self._call:
            yield event

    def cancel(self) -> None:
        """Lets go of the stream; the job goes on."""
        self._call.cancel()


async def submit(connection: AsyncConnection, request: TrainJobRequest) -> AsyncSubmittedCall:
    """The stream of the job that the request made, or had made before.

    Raises:
        RpcError: the server refused the request, or could not be reached.
    """
    attempts = Attempts(connection.timeout)
    while True:
        connection.check_open()
        call = connection.stubs.training.TrainJob(request)
        try:
            return AsyncSubmittedCall(
                await _first_event(connection, call, attempts.remaining()), call
            )
        except RpcError as error:
            await async_sleep(attempts.delay(error))


async def _first_event(
    connection: AsyncConnection, call: AsyncEventCall, seconds: float
) -> JobEvent:
    try:
        with sdk_errors(connection), async_cancel_after(call, seconds):
            return await anext(aiter(call))
    except StopAsyncIteration:
        raise UnavailableError("the stream ended before the job was accepted") from None
