"""The handle of a sweep."""

from collections.abc import AsyncIterator

from leadline.client._async.connection import AsyncConnection
from leadline.client._async.deletion import delete_sweep
from leadline.client._async.followed import AsyncFollowedSweep
from leadline.client._async.job import AsyncTrainingJob
from leadline.client._async.patience import call_patiently
from leadline.client._async.stream import AsyncEventStream
from leadline.client._deadline import Deadline
from leadline.client._errors import SweepCancelledError, SweepFailedError
from leadline.client._retry import OnReconnect
from leadline.client._runtime import AsyncEventCall
from leadline.client._states import sweep_is_final
from leadline.v1.sweep_pb2 import (
    SWEEP_STATE_CANCELLED,
    SWEEP_STATE_FAILED,
    Sweep,
    SweepEvent,
    SweepTable,
)
from leadline.v1.training_service_pb2 import (
    CancelSweepRequest,
    GetSweepRequest,
    PauseSweepRequest,
    ResumeSweepRequest,
)


class AsyncTrainingSweep:
    """A sweep on the server, to be followed, waited for, paused, cancelled or asked.

    The sweep goes on whatever becomes of the handle.

    Attributes:
        name: the resource name, "sweeps/{id}".
    """

    def __init__(
        self,
        connection: AsyncConnection,
        name: str,
        *,
        call: AsyncEventCall[SweepEvent] | None = None,
        progress_interval: float | None = None,
    ) -> None:
        """Use `AsyncClient.train_sweep` or `AsyncClient.sweep` instead."""
        self.name = name
        self._connection = connection
        self._call = call
        self._progress_interval = progress_interval

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def id(self) -> str:
        """The bare ID of the sweep."""
        return self.name.removeprefix("sweeps/")

    async def events(
        self,
        after_sequence: int = 0,
        progress_interval: float | None = None,
        *,
        on_reconnect: OnReconnect | None = None,
    ) -> AsyncIterator[SweepEvent]:
        """Every event after a sequence, in order and exactly once, up to `finished`.

        They are those of all its jobs. Where the stream breaks, for a restart
        of the server too, it is taken up again where it broke, for as long as
        the client's `reconnect_timeout` allows.

        Args:
            after_sequence: the sequence of the last event that is not wanted
                again; 0: from the first.
            progress_interval: where set, transient progress events (sequence
                0) as well, at most one in so many seconds, 0.05 to 3,600.
                None: as was given to `train_sweep`.
            on_reconnect: called before each attempt to reconnect with the
                error and the seconds until the attempt.

        Raises:
            NotFoundError: there is no such sweep.
            UnavailableError: the server was away for too long.
            EventGapError: an event is missing.
        """
        if progress_interval is None:
            progress_interval = self._progress_interval
        call = self._take_call(after_sequence, progress_interval)
        stream = AsyncEventStream(
            self._connection,
            AsyncFollowedSweep(self._connection, self.name),
            after_sequence=after_sequence,
            progress_interval=progress_interval,
            on_reconnect=on_reconnect,
            deadline=self._deadline(None),
        )
        async for event in stream.events(call):
            yield event

    async def result(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - bounds what several calls take, not one await
        *,
        on_reconnect: OnReconnect | None = None,
    ) -> Sweep:
        """The sweep once it has succeeded, with its jobs and its table.

        Args:
            timeout: seconds to wait, the server's absences included; None: as
                long as it takes. The sweep goes on whatever comes of it.
            on_reconnect: as for `events`.

        Raises:
            SweepFailedError: one of its jobs failed; the others went on.
            SweepCancelledError: it was cancelled.
            DeadlineExceededError: it has not ended within `timeout`.
            NotFoundError: there is no such sweep.
            UnavailableError: the server was away for too long.
        """
        deadline = self._deadline(timeout)
        sweep = await self._refresh_patiently(deadline, on_reconnect)
        if not sweep_is_final(sweep):
            stream = AsyncEventStream(
                self._connection,
                AsyncFollowedSweep(self._connection, self.name),
                after_sequence=sweep.latest_sequence,
                progress_interval=None,
                on_reconnect=on_reconnect,
                deadline=deadline,
            )
            async for _event in stream.events():
                pass
            sweep = await self._refresh_patiently(deadline, on_reconnect)
        if sweep.state == SWEEP_STATE_FAILED:
            raise SweepFailedError(sweep)
        if sweep.state == SWEEP_STATE_CANCELLED:
            raise SweepCancelledError(sweep)
        return sweep

    async def refresh(self) -> Sweep:
        """The sweep as it stands now, with its jobs and its table.

        Raises:
            NotFoundError: there is no such sweep.
        """
        return await self._connection.call(
            self._connection.stubs.training.GetSweep, GetSweepRequest(name=self.name)
        )

    async def table(self) -> SweepTable:
        """What its jobs came to, as far as they are.

        Raises:
            NotFoundError: there is no such sweep.
        """
        return (await self.refresh()).table

    async def jobs(self) -> list[AsyncTrainingJob]:
        """The handles of its jobs, in the order of the grid.

        Raises:
            NotFoundError: there is no such sweep.
        """
        sweep = await self.refresh()
        return [AsyncTrainingJob(self._connection, one.job) for one in sweep.jobs]

    async def pause(self) -> Sweep:
        """Sets all its jobs aside, mid-epoch too, and returns it.

        Raises:
            NotFoundError: there is no such sweep.
            FailedPreconditionError: it has already ended.
        """
        return await self._connection.call(
            self._connection.stubs.training.PauseSweep, PauseSweepRequest(name=self.name)
        )

    async def resume(self) -> Sweep:
        """Queues all its paused jobs again, and returns it.

        Raises:
            NotFoundError: there is no such sweep.
            FailedPreconditionError: it has already ended.
        """
        return await self._connection.call(
            self._connection.stubs.training.ResumeSweep, ResumeSweepRequest(name=self.name)
        )

    async def cancel(self) -> Sweep:
        """Cancels all its jobs that have not ended, and returns it; completed epochs stay usable.

        Raises:
            NotFoundError: there is no such sweep.
            FailedPreconditionError: it has already succeeded or failed.
        """
        return await self._connection.call(
            self._connection.stubs.training.CancelSweep, CancelSweepRequest(name=self.name)
        )

    async def delete(self) -> None:
        """Deletes the sweep, which must have ended, with its jobs and their models.

        Raises:
            NotFoundError: there is no such sweep.
            FailedPreconditionError: it has not ended: cancel it first.
        """
        await delete_sweep(self._connection, self.name)

    def detach(self) -> None:
        """Lets go of the stream that `train_sweep` opened; the sweep goes on."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(timeout, f"{self.name} has not ended")

    async def _refresh_patiently(
        self, deadline: Deadline, on_reconnect: OnReconnect | None
    ) -> Sweep:
        return await call_patiently(
            self._connection,
            self._connection.stubs.training.GetSweep,
            GetSweepRequest(name=self.name),
            deadline=deadline,
            on_reconnect=on_reconnect,
        )

    def _take_call(
        self, after_sequence: int, progress_interval: float | None
    ) -> AsyncEventCall[SweepEvent] | None:
        """The stream that `train_sweep` opened, once, where it says what is asked for."""
        if after_sequence == 0 and progress_interval == self._progress_interval:
            call, self._call = self._call, None
            return call
        return None
