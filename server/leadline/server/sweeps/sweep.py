"""A sweep and its events, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from leadline.server.jobs.job import Event, Job, Progress
from leadline.server.jobs.json_values import JsonValues
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.states import JobState
from leadline.server.sweeps.grid import AxisValue, Grid
from leadline.server.sweeps.median_stopping import MedianStopping
from leadline.server.sweeps.table import SweepTable

# The reason of a cancellation by the median stopping rule.
MEDIAN_STOPPED = "MEDIAN_STOPPED"


class SweepState(StrEnum):
    """The state of a sweep; the states of its jobs determine it."""

    QUEUED = "queued"  # no job has started
    RUNNING = "running"  # some jobs run, or are queued after others have started
    PAUSED = "paused"  # every unfinished job is paused
    SUCCEEDED = "succeeded"  # final: no job failed, at least one succeeded
    FAILED = "failed"  # final: at least one job failed
    CANCELLED = "cancelled"  # final: the sweep was cancelled, or every job was

    @property
    def is_final(self) -> bool:
        """Whether no other state can follow."""
        return self in {SweepState.SUCCEEDED, SweepState.FAILED, SweepState.CANCELLED}


@dataclass(frozen=True, kw_only=True)
class SweepCounts(JsonValues):
    """How many jobs of a sweep are in each state.

    Attributes:
        by_state: the number of jobs in each state, including zeros.
        begun: how many jobs a worker has claimed.
        median_stopped: how many jobs the median stopping rule has cancelled.
    """

    by_state: Mapping[JobState, int]
    begun: int
    median_stopped: int

    def state(self, *, is_cancelled: bool) -> SweepState:
        """The state of the sweep; `is_cancelled` says whether a caller has cancelled it."""
        if self.by_state[JobState.RUNNING]:
            return SweepState.RUNNING
        if self.by_state[JobState.QUEUED]:
            has_begun = self.begun or any(self.by_state[state] for state in _FINAL)
            return SweepState.RUNNING if has_begun else SweepState.QUEUED
        if self.by_state[JobState.PAUSED]:
            return SweepState.PAUSED
        if is_cancelled:
            return SweepState.CANCELLED
        if self.by_state[JobState.FAILED]:
            return SweepState.FAILED
        succeeded = self.by_state[JobState.SUCCEEDED]
        return SweepState.SUCCEEDED if succeeded else SweepState.CANCELLED

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The counts that `to_dict` wrote."""
        by_state = {JobState(state): count for state, count in values["by_state"].items()}
        return cls(**{**values, "by_state": by_state})


_FINAL = tuple(state for state in JobState if state.is_final)


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """A request for a sweep: a grid, and the options and stopping rule of its jobs."""

    grid: Grid
    options: JobOptions
    median_stopping: MedianStopping | None = None


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The current state of a sweep.

    Attributes:
        number: its position in the order of submission.
        latest_sequence: the sequence of its newest event.
        owner: the name of the identity that submitted it; "" without authentication.
    """

    number: int
    sweep_id: str
    owner: str
    request: SweepRequest
    state: SweepState
    create_time: datetime
    end_time: datetime | None
    counts: SweepCounts
    latest_sequence: int


@dataclass(frozen=True, kw_only=True)
class SweepQueued:
    """The sweep was accepted, and all its jobs with it.

    Attributes:
        grid: the specs of the jobs.
        jobs: the jobs' ids and their points of the grid, in its order.
    """

    grid: Grid
    jobs: tuple[tuple[str, dict[str, AxisValue]], ...]

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON values."""
        return {"grid": self.grid.to_dict(), "jobs": [list(job) for job in self.jobs]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The event that `to_dict` wrote."""
        return cls(
            grid=Grid.from_dict(values["grid"]),
            jobs=tuple((job_id, point) for job_id, point in values["jobs"]),
        )


@dataclass(frozen=True, kw_only=True)
class SweepFinished(JsonValues):
    """The last job reached its final state."""

    state: SweepState
    counts: SweepCounts
    table: SweepTable

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The event that `to_dict` wrote."""
        return cls(
            state=SweepState(values["state"]),
            counts=SweepCounts.from_dict(values["counts"]),
            table=SweepTable.from_dict(values["table"]),
        )


@dataclass(frozen=True, kw_only=True)
class SweepEvent:
    """A durable step in a sweep's life, numbered from 1 without gaps.

    Except for the first and the last event, `body` is an event of one of its jobs.
    """

    sweep_id: str
    sequence: int
    create_time: datetime
    body: SweepQueued | Event | SweepFinished


@dataclass(frozen=True, kw_only=True)
class SweepView:
    """A sweep, its jobs in the order of the grid, and the table of their results."""

    sweep: Sweep
    jobs: tuple[Job, ...]
    table: SweepTable


@dataclass(frozen=True, kw_only=True)
class SweepProgress:
    """The progress of a sweep; transient.

    Attributes:
        sweep: its current state.
        running: the running jobs in the order of the grid, each with its progress.
    """

    sweep: Sweep
    running: tuple[tuple[Job, Progress], ...]
