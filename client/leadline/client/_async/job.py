"""The handle of a training job."""

from collections.abc import AsyncIterator

from leadline.client._async.handle import AsyncHandle
from leadline.client._async.job_predictions import AsyncJobPredictions
from leadline.client._async.stream import AsyncCalls
from leadline.client._errors import JobCancelledError, JobFailedError
from leadline.client._retry import OnReconnect
from leadline.v1.job_pb2 import JOB_STATE_CANCELLED, JOB_STATE_FAILED, EpochResult, Job, JobEvent
from leadline.v1.training_service_pb2 import (
    CancelJobRequest,
    DeleteJobRequest,
    GetJobRequest,
    PauseJobRequest,
    ResumeJobRequest,
    WatchJobRequest,
)


class AsyncTrainingJob(AsyncHandle[Job, JobEvent], AsyncJobPredictions):
    """A job on the server: follow it, wait for it, control it, or predict with its model."""

    @property
    def model(self) -> str:
        """The resource name of its model, which exists from the first completed epoch on."""
        return f"models/{self.id}"

    async def epochs(
        self, *, on_reconnect: OnReconnect | None = None
    ) -> AsyncIterator[EpochResult]:
        """The result of every epoch from the first on, as they are completed.

        Ends when the job has ended, in any state; `result()` raises if it failed.

        Raises:
            NotFoundError: the job does not exist, or was deleted meanwhile.
            UnavailableError: the server was away for too long.
            EventGapError: an event is missing.
        """
        async for event in self.events(on_reconnect=on_reconnect):
            if event.HasField("epoch"):
                yield event.epoch

    def _calls(self) -> AsyncCalls[Job, JobEvent]:
        training = self._connection.stubs.training
        return AsyncCalls(
            get=(training.GetJob, GetJobRequest(name=self.name)),
            pause=(training.PauseJob, PauseJobRequest(name=self.name)),
            resume=(training.ResumeJob, ResumeJobRequest(name=self.name)),
            cancel=(training.CancelJob, CancelJobRequest(name=self.name)),
            delete=(training.DeleteJob, DeleteJobRequest(name=self.name)),
            watch=lambda after_sequence, progress_interval, seconds: training.WatchJob(
                WatchJobRequest(
                    name=self.name,
                    after_sequence=after_sequence,
                    progress_interval=progress_interval,
                ),
                timeout=seconds,
            ),
        )

    def _check_success(self, resource: Job) -> None:
        if resource.state == JOB_STATE_FAILED:
            raise JobFailedError(resource)
        if resource.state == JOB_STATE_CANCELLED:
            raise JobCancelledError(resource)
