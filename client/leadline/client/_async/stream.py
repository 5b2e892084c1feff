"""A job's events, across broken streams and restarts of the server."""

from collections.abc import AsyncIterator

from leadline.client._async.connection import AsyncConnection
from leadline.client._cursor import EventCursor
from leadline.client._deadline import Deadline
from leadline.client._errors import RpcError, UnavailableError
from leadline.client._grpc_errors import sdk_errors
from leadline.client._requests import duration
from leadline.client._retry import OnReconnect, Reconnection
from leadline.client._runtime import AsyncEventCall, async_sleep
from leadline.client._states import is_final
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.training_service_pb2 import GetJobRequest, WatchJobRequest


class AsyncEventStream:
    """Follows one job until it has finished, over as many streams as that takes."""

    def __init__(
        self,
        connection: AsyncConnection,
        job: str,
        *,
        after_sequence: int,
        progress_interval: float | None,
        on_reconnect: OnReconnect | None,
        deadline: Deadline,
    ) -> None:
        self._connection = connection
        self._job = job
        self._progress_interval = duration(progress_interval)
        self._cursor = EventCursor(job, after_sequence, with_progress=progress_interval is not None)
        self._reconnection = Reconnection(connection.reconnect_timeout, on_reconnect=on_reconnect)
        self._deadline = deadline

    async def events(self, call: AsyncEventCall | None = None) -> AsyncIterator[JobEvent]:
        """The events in order, each durable one exactly once, the last of which is `finished`.

        Starts with `call` where a stream is open already.
        """
        while not self._cursor.finished:
            call = call or self._attach()
            try:
                with sdk_errors(self._connection):
                    async for event in call:
                        self._reconnection.heard()
                        if self._cursor.accept(event):
                            yield event
                await self._check_end()
            except RpcError as error:
                await self._recover(error)
            finally:
                call.cancel()
            call = None

    def _attach(self) -> AsyncEventCall:
        self._connection.check_open()
        self._reconnection.began()
        request = WatchJobRequest(
            name=self._job,
            after_sequence=self._cursor.sequence,
            progress_interval=self._progress_interval,
        )
        return self._connection.stubs.training.WatchJob(request, timeout=self._deadline.remaining())

    async def _check_end(self) -> None:
        """Tells a stream that ended well from one that was cut without an error.

        Raises:
            UnavailableError: the job has more to say than the stream said.
        """
        if self._cursor.finished:
            return
        stub = self._connection.stubs.training
        request = GetJobRequest(name=self._job)
        job = await self._connection.call(stub.GetJob, request, self._deadline)
        if is_final(job) and job.latest_sequence <= self._cursor.sequence:
            self._cursor.finished = True
            return
        raise UnavailableError(f"the stream of {self._job} ended before the job")

    async def _recover(self, error: RpcError) -> None:
        if self._cursor.finished:
            return
        self._connection.check_open()
        self._deadline.check()
        await async_sleep(self._deadline.at_most(self._reconnection.delay(error)))
        self._deadline.check()
