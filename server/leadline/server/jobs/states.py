"""The state machine of a job."""

from collections.abc import Mapping
from enum import StrEnum

from leadline.server.errors import FailedPreconditionError


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "queued"  # accepted, or requeued: waits for a free device
    RUNNING = "running"  # a worker trains it
    PAUSED = "paused"  # by a caller, or because the disk was full
    SUCCEEDED = "succeeded"  # final: every epoch is complete
    FAILED = "failed"  # final: it could not be completed; the failure has the reason
    CANCELLED = "cancelled"  # final: by a caller, or by a stopping rule

    @property
    def is_final(self) -> bool:
        """Whether no other state can follow."""
        return not MOVES[self]


# The legal moves. A running job is queued again when the server stops or its
# worker is lost. It then resumes after its last complete epoch.
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
    """Checks that a move is legal.

    Raises:
        FailedPreconditionError: the move is not legal.
    """
    if target in MOVES[current]:
        return
    raise FailedPreconditionError(
        f"job jobs/{job_id} is in the state {current}, which cannot become {target}",
        reason="ILLEGAL_JOB_STATE",
        metadata={"job": f"jobs/{job_id}", "state": current.value, "target": target.value},
    )
