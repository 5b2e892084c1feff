"""The handle of a sweep."""

from leadline.client._async.handle import AsyncHandle
from leadline.client._async.job import AsyncTrainingJob
from leadline.client._errors import SweepCancelledError, SweepFailedError
from leadline.v1.sweep_pb2 import (
    SWEEP_STATE_CANCELLED,
    SWEEP_STATE_FAILED,
    Sweep,
    SweepEvent,
    SweepTable,
)


class AsyncTrainingSweep(AsyncHandle[Sweep, SweepEvent]):
    """A sweep on the server: follow it, wait for it, control all its jobs, or compare them."""

    _kind = "Sweep"

    async def table(self) -> SweepTable:
        """The table of its jobs' results so far.

        Raises:
            NotFoundError: the sweep does not exist.
        """
        return (await self.refresh()).table

    async def jobs(self) -> list[AsyncTrainingJob]:
        """Handles for its jobs, in the order of the grid.

        Raises:
            NotFoundError: the sweep does not exist.
        """
        sweep = await self.refresh()
        return [AsyncTrainingJob(self._connection, entry.job) for entry in sweep.jobs]

    def _check_success(self, resource: Sweep) -> None:
        if resource.state == SWEEP_STATE_FAILED:
            raise SweepFailedError(resource)
        if resource.state == SWEEP_STATE_CANCELLED:
            raise SweepCancelledError(resource)
