"""The calls about sweeps: submit, follow, list, pause, resume, cancel, delete."""

import uuid
from collections.abc import AsyncIterator
from typing import Unpack

from leadline.client._async.connection import AsyncConnection
from leadline.client._async.submit import submit
from leadline.client._async.sweep import AsyncTrainingSweep
from leadline.client._job_options import RetentionLike, TimeLimit, job_options
from leadline.client._names import sweep_name
from leadline.client._requests import build, duration
from leadline.client._sweep_requests import Axes, MedianStoppingLike, median_stopping_rule, to_axes
from leadline.client._training_spec import SpecFields, SpecLike, training_spec
from leadline.v1.sweep_pb2 import Sweep
from leadline.v1.training_service_pb2 import ListSweepsRequest, TrainSweepRequest


class AsyncSweepCalls:
    """The part of the client that trains sweeps."""

    _connection: AsyncConnection

    async def train_sweep(
        self,
        axes: Axes,
        spec: SpecLike | None = None,
        *,
        median_stopping: MedianStoppingLike = False,
        priority: int | None = None,
        time_limit: TimeLimit | None = None,
        retention: RetentionLike | None = None,
        request_id: str | None = None,
        progress_interval: float | None = None,
        **fields: Unpack[SpecFields],
    ) -> AsyncTrainingSweep:
        """Submits a sweep and returns its handle as soon as all its jobs are accepted.

        Safe to repeat, because it always sends a request id.

        Args:
            axes: the values of each field in which the jobs differ, such as
                {"blocks": [2, 4], "batch_norm": [False, True], "seed": range(3)};
                there is a job for each combination.
            spec: the fields that the jobs share, as for `train`.
            median_stopping: whether to stop hopeless jobs, or the rule that
                stops them.
            priority: the priority of each job, as for `train`.
            time_limit: as for `train`, counted from acceptance of the sweep.
            retention: as for `train`.
            request_id: a UUID that identifies this sweep, even in a call of
                another process; None for a new one.
            progress_interval: as for `train`.
            **fields: fields of the spec, as for `train`.

        Raises:
            InvalidArgumentError: a field is invalid; see its `violations`.
            AlreadyExistsError: `request_id` was used with another grid, or with
                other options.
            ResourceExhaustedError: the server's queue has no room for all jobs, or a quota is
                used up.
            UnavailableError: the server is unreachable.
        """
        request = TrainSweepRequest(
            spec=training_spec(spec, **fields),
            axes=to_axes(axes),
            options=job_options(priority=priority, time_limit=time_limit, retention=retention),
            median_stopping=median_stopping_rule(median_stopping),
            request_id=str(uuid.uuid4()) if request_id is None else request_id,
            progress_interval=duration(progress_interval),
        )
        call = await submit(
            self._connection, lambda: self._connection.stubs.training.TrainSweep(request)
        )
        return AsyncTrainingSweep(
            self._connection,
            call.queued.sweep,
            call=call,
            progress_interval=progress_interval,
        )

    def sweep(self, name: str) -> AsyncTrainingSweep:
        """A handle for a sweep, by its name or ID, without a call to the server."""
        return AsyncTrainingSweep(self._connection, sweep_name(name))

    async def sweeps(self, *, owner: str | None = None, page_size: int = 0) -> AsyncIterator[Sweep]:
        """Yields every sweep, the newest first, without its jobs and its table.

        Args:
            owner: only sweeps of this identity; "me" for your own.
            page_size: sweeps per call; 0 for the server's default.
        """
        request = build(ListSweepsRequest(), owner=owner, page_size=page_size)
        async for page in self._connection.pages(
            self._connection.stubs.training.ListSweeps, request
        ):
            for sweep in page.sweeps:
                yield sweep

    async def get_sweep(self, name: str) -> Sweep:
        """The current state of a sweep, by its name or ID, with its jobs and table.

        Raises:
            NotFoundError: the sweep does not exist.
        """
        return await self.sweep(name).refresh()

    async def pause_sweep(self, name: str) -> Sweep:
        """Pauses all jobs of a sweep; see `AsyncTrainingSweep.pause`."""
        return await self.sweep(name).pause()

    async def resume_sweep(self, name: str) -> Sweep:
        """Queues all paused jobs of a sweep again; see `AsyncTrainingSweep.resume`."""
        return await self.sweep(name).resume()

    async def cancel_sweep(self, name: str) -> Sweep:
        """Cancels all unfinished jobs of a sweep; see `AsyncTrainingSweep.cancel`."""
        return await self.sweep(name).cancel()

    async def delete_sweep(self, name: str) -> None:
        """Deletes an ended sweep, its jobs and models; see `AsyncTrainingSweep.delete`."""
        await self.sweep(name).delete()
