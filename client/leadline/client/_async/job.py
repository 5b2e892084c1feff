"""The handle of a training job."""

from collections.abc import AsyncIterator

from leadline.client._async.connection import AsyncConnection
from leadline.client._async.deletion import delete
from leadline.client._async.followed import AsyncFollowedJob
from leadline.client._async.job_predictions import AsyncJobPredictions
from leadline.client._async.patience import call_patiently
from leadline.client._async.stream import AsyncEventStream
from leadline.client._deadline import Deadline
from leadline.client._errors import JobCancelledError, JobFailedError
from leadline.client._retry import OnReconnect
from leadline.client._runtime import AsyncEventCall
from leadline.client._states import is_final
from leadline.v1.job_pb2 import JOB_STATE_CANCELLED, JOB_STATE_FAILED, EpochResult, Job, JobEvent
from leadline.v1.training_service_pb2 import (
    CancelJobRequest,
    GetJobRequest,
    PauseJobRequest,
    ResumeJobRequest,
)


class AsyncTrainingJob(AsyncJobPredictions):
    """A job on the server, to be followed, waited for, paused, cancelled or asked.

    The job goes on whatever becomes of the handle: it ends when it has
    finished, or when somebody cancels it. A pause is no end: those who follow
    the job or wait for it go on to do so.

    Attributes:
        name: the resource name, "jobs/{id}".
    """

    def __init__(
        self,
        connection: AsyncConnection,
        name: str,
        *,
        call: AsyncEventCall[JobEvent] | None = None,
        progress_interval: float | None = None,
    ) -> None:
        """Use `AsyncClient.train` or `AsyncClient.job` instead."""
        self.name = name
        self._connection = connection
        self._call = call
        self._progress_interval = progress_interval

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def id(self) -> str:
        """The bare ID of the job."""
        return self.name.removeprefix("jobs/")

    @property
    def model(self) -> str:
        """The resource name of its model, which exists from the first completed epoch on."""
        return f"models/{self.id}"

    async def events(
        self,
        after_sequence: int = 0,
        progress_interval: float | None = None,
        *,
        on_reconnect: OnReconnect | None = None,
    ) -> AsyncIterator[JobEvent]:
        """Every event after a sequence, in order and exactly once, up to `finished`.

        Where the stream breaks, for a restart of the server too, it is taken
        up again where it broke, for as long as the client's
        `reconnect_timeout` allows.

        Args:
            after_sequence: the sequence of the last event that is not wanted
                again; 0: from the first.
            progress_interval: where set, transient progress events (sequence
                0) as well, at most one in so many seconds, 0.05 to 3,600.
                None: as was given to `train`.
            on_reconnect: called before each attempt to reconnect with the
                error and the seconds until the attempt.

        Raises:
            NotFoundError: there is no such job, or it was deleted meanwhile.
            UnavailableError: the server was away for too long.
            EventGapError: an event is missing.
        """
        if progress_interval is None:
            progress_interval = self._progress_interval
        call = self._take_call(after_sequence, progress_interval)
        stream = AsyncEventStream(
            self._connection,
            AsyncFollowedJob(self._connection, self.name),
            after_sequence=after_sequence,
            progress_interval=progress_interval,
            on_reconnect=on_reconnect,
            deadline=self._deadline(None),
        )
        async for event in stream.events(call):
            yield event

    async def epochs(
        self, *, on_reconnect: OnReconnect | None = None
    ) -> AsyncIterator[EpochResult]:
        """The result of every epoch from the first on, as they are completed.

        Ends when the job has ended, however it did: `result()` tells.

        Raises:
            NotFoundError: there is no such job, or it was deleted meanwhile.
            UnavailableError: the server was away for too long.
            EventGapError: an event is missing.
        """
        async for event in self.events(on_reconnect=on_reconnect):
            if event.HasField("epoch"):
                yield event.epoch

    async def result(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - bounds what several calls take, not one await
        *,
        on_reconnect: OnReconnect | None = None,
    ) -> Job:
        """The job once it has succeeded.

        Args:
            timeout: seconds to wait, the server's absences included; None: as
                long as it takes. The job goes on whatever comes of it.
            on_reconnect: as for `events`.

        Raises:
            JobFailedError: it failed.
            JobCancelledError: it was cancelled.
            DeadlineExceededError: it has not ended within `timeout`.
            NotFoundError: there is no such job, or it was deleted meanwhile.
            UnavailableError: the server was away for too long.
        """
        deadline = self._deadline(timeout)
        job = await self._refresh_patiently(deadline, on_reconnect)
        if not is_final(job):
            await self._wait(job.latest_sequence, deadline, on_reconnect)
            job = await self._refresh_patiently(deadline, on_reconnect)
        if job.state == JOB_STATE_FAILED:
            raise JobFailedError(job)
        if job.state == JOB_STATE_CANCELLED:
            raise JobCancelledError(job)
        return job

    async def refresh(self) -> Job:
        """The job as it stands now.

        Raises:
            NotFoundError: there is no such job.
        """
        return await self._connection.call(
            self._connection.stubs.training.GetJob, GetJobRequest(name=self.name)
        )

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(timeout, f"{self.name} has not ended")

    async def _wait(
        self, after_sequence: int, deadline: Deadline, on_reconnect: OnReconnect | None
    ) -> None:
        stream = AsyncEventStream(
            self._connection,
            AsyncFollowedJob(self._connection, self.name),
            after_sequence=after_sequence,
            progress_interval=None,
            on_reconnect=on_reconnect,
            deadline=deadline,
        )
        async for _event in stream.events():
            pass

    async def _refresh_patiently(self, deadline: Deadline, on_reconnect: OnReconnect | None) -> Job:
        return await call_patiently(
            self._connection,
            self._connection.stubs.training.GetJob,
            GetJobRequest(name=self.name),
            deadline=deadline,
            on_reconnect=on_reconnect,
        )

    async def pause(self) -> Job:
        """Sets the job aside, mid-epoch too, and returns it; what is complete is kept.

        Pausing a paused job changes nothing.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: it has already ended.
        """
        return await self._connection.call(
            self._connection.stubs.training.PauseJob, PauseJobRequest(name=self.name)
        )

    async def resume(self) -> Job:
        """Queues the paused job again, to go on after its last complete epoch, and returns it.

        Resuming a job that waits or runs changes nothing.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: it has already ended.
        """
        return await self._connection.call(
            self._connection.stubs.training.ResumeJob, ResumeJobRequest(name=self.name)
        )

    async def delete(self) -> None:
        """Deletes the job, which must have ended, with its events, its model and its checkpoints.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: it has not ended: cancel it first.
        """
        await delete(self._connection, self.name)

    async def cancel(self) -> Job:
        """Cancels the job, mid-epoch too, and returns it; its completed epochs stay usable.

        Raises:
            NotFoundError: there is no such job.
            FailedPreconditionError: it has already succeeded or failed.
        """
        return await self._connection.call(
            self._connection.stubs.training.CancelJob, CancelJobRequest(name=self.name)
        )

    def detach(self) -> None:
        """Lets go of the stream that `train` opened; the job goes on.

        Worth calling by those who submit many jobs and follow none.
        """
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _take_call(
        self, after_sequence: int, progress_interval: float | None
    ) -> AsyncEventCall[JobEvent] | None:
        """The stream that `train` opened, once, where it says what is asked for."""
        if after_sequence == 0 and progress_interval == self._progress_interval:
            call, self._call = self._call, None
            return call
        return None
