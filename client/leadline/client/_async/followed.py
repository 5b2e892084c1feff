"""What can be followed: a job, or a sweep of jobs."""

from typing import Protocol, TypeVar

from google.protobuf.duration_pb2 import Duration

from leadline.client._async.connection import AsyncConnection
from leadline.client._deadline import Deadline
from leadline.client._runtime import AsyncEventCall
from leadline.client._states import is_final, sweep_is_final
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.sweep_pb2 import SweepEvent
from leadline.v1.training_service_pb2 import (
    GetJobRequest,
    GetSweepRequest,
    WatchJobRequest,
    WatchSweepRequest,
)

AnyEvent = TypeVar("AnyEvent", bound=JobEvent | SweepEvent)
AnyEvent_co = TypeVar("AnyEvent_co", bound=JobEvent | SweepEvent, covariant=True)


class AsyncFollowed(Protocol[AnyEvent_co]):
    """Something on the server that has numbered events.

    Attributes:
        name: its resource name.
    """

    name: str

    def watch(
        self, after_sequence: int, progress_interval: Duration | None, seconds: float | None
    ) -> AsyncEventCall[AnyEvent_co]:
        """A stream of its events after a sequence, for so many seconds at most."""

    async def ended_with(self, sequence: int, deadline: Deadline) -> bool:
        """Whether it has ended, and no event comes after this one."""


class AsyncFollowedJob:
    """A job that is followed."""

    def __init__(self, connection: AsyncConnection, name: str) -> None:
        self.name = name
        self._connection = connection

    def watch(
        self, after_sequence: int, progress_interval: Duration | None, seconds: float | None
    ) -> AsyncEventCall[JobEvent]:
        """A stream of its events."""
        request = WatchJobRequest(
            name=self.name, after_sequence=after_sequence, progress_interval=progress_interval
        )
        return self._connection.stubs.training.WatchJob(request, timeout=seconds)

    async def ended_with(self, sequence: int, deadline: Deadline) -> bool:
        """Whether nothing comes after this event."""
        job = await self._connection.call(
            self._connection.stubs.training.GetJob, GetJobRequest(name=self.name), deadline
        )
        return is_final(job) and job.latest_sequence <= sequence


class AsyncFollowedSweep:
    """A sweep that is followed."""

    def __init__(self, connection: AsyncConnection, name: str) -> None:
        self.name = name
        self._connection = connection

    def watch(
        self, after_sequence: int, progress_interval: Duration | None, seconds: float | None
    ) -> AsyncEventCall[SweepEvent]:
        """A stream of its events."""
        request = WatchSweepRequest(
            name=self.name, after_sequence=after_sequence, progress_interval=progress_interval
        )
        return self._connection.stubs.training.WatchSweep(request, timeout=seconds)

    async def ended_with(self, sequence: int, deadline: Deadline) -> bool:
        """Whether nothing comes after this event."""
        sweep = await self._connection.call(
            self._connection.stubs.training.GetSweep, GetSweepRequest(name=self.name), deadline
        )
        return sweep_is_final(sweep) and sweep.latest_sequence <= sequence
