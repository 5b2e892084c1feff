"""The handle of a sweep."""

from leadline.client._async.handle import AsyncHandle
from leadline.client._async.job import AsyncTrainingJob
from leadline.client._async.stream import AsyncCalls
from leadline.client._errors import SweepCancelledError, SweepFailedError
from leadline.v1.sweep_pb2 import (
    SWEEP_STATE_CANCELLED,
    SWEEP_STATE_FAILED,
    Sweep,
    SweepEvent,
    SweepTable,
)
from leadline.v1.training_service_pb2 import (
    CancelSweepRequest,
    DeleteSweepRequest,
    GetSweepRequest,
    PauseSweepRequest,
    ResumeSweepRequest,
    WatchSweepRequest,
)


class AsyncTrainingSweep(AsyncHandle[Sweep, SweepEvent]):
    """A sweep on the server: follow it, wait for it, control all its jobs, or compare them."""

    async def table(self) -> SweepTable:
        """The results of its jobs so far.

        Raises:
            NotFoundError: the sweep does not exist.
        """
        return (await self.refresh()).table

    async def jobs(self) -> list[AsyncTrainingJob]:
        """The handles of its jobs, in the order of the grid.

        Raises:
            NotFoundError: the sweep does not exist.
        """
        sweep = await self.refresh()
        return [AsyncTrainingJob(self._connection, entry.job) for entry in sweep.jobs]

    def _calls(self) -> AsyncCalls[Sweep, SweepEvent]:
        training = self._connection.stubs.training
        return AsyncCalls(
            get=(training.GetSweep, GetSweepRequest(name=self.name)),
            pause=(training.PauseSweep, PauseSweepRequest(name=self.name)),
            resume=(training.ResumeSweep, ResumeSweepRequest(name=self.name)),
            cancel=(training.CancelSweep, CancelSweepRequest(name=self.name)),
            delete=(training.DeleteSweep, DeleteSweepRequest(name=self.name)),
            watch=lambda after_sequence, progress_interval, seconds: training.WatchSweep(
                WatchSweepRequest(
                    name=self.name,
                    after_sequence=after_sequence,
                    progress_interval=progress_interval,
                ),
                timeout=seconds,
            ),
        )

    def _check_success(self, resource: Sweep) -> None:
        if resource.state == SWEEP_STATE_FAILED:
            raise SweepFailedError(resource)
        if resource.state == SWEEP_STATE_CANCELLED:
            raise SweepCancelledError(resource)
