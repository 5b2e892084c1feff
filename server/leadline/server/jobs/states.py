"""The state machine of a job: pure code, and the one place that knows it."""

from collections.abc import Mapping
from enum import StrEnum

from leadline.server.errors import FailedPreconditionError


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"  # accepted, or handed back: waits for a free device
    RUNNING = "running"  # a worker has it
    PAUSED = "paused"  # set aside, by a caller or for want of disk
    SUCCEEDED = "succeeded"  # final: every epoch is complete
    FAILED = "failed"  # final: could not be completed, and says why
    CANCELLED = "cancelled"  # final: someone asked

    @property
    def is_final(self) -> bool:
        """Whether no move leads out of it."""
        return not MOVES[self]


# What may follow what. A running job is queued again when the server stops or
# its worker is lost: it goes on after its last complete epoch.
MOVES: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset(
        {JobState.RUNNING, JobState.PAUSED, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.QUEUED,
            JobState.PAUSED,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELLED,
        }
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


def check_move(job_id: str, current: JobState, target: JobState) -> None:
    """Passes a legal move.

    Raises:
        FailedPreconditionError: the move is not legal.
    """
    if target in MOVES[current]:
        return
    raise FailedPreconditionError(
        f"job jobs/{job_id} is {current} and cannot become {target}",
        reason="ILLEGAL_JOB_STATE",
        metadata={"job": f"jobs/{job_id}", "state": current.value, "target": target.value},
    )
