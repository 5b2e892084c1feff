"""The states of a job and of a sweep."""

from leadline.v1.job_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_SUCCEEDED,
    Job,
)
from leadline.v1.sweep_pb2 import (
    SWEEP_STATE_CANCELLED,
    SWEEP_STATE_FAILED,
    SWEEP_STATE_SUCCEEDED,
    Sweep,
)

FINAL_STATES = frozenset({JOB_STATE_SUCCEEDED, JOB_STATE_FAILED, JOB_STATE_CANCELLED})

FINAL_SWEEP_STATES = frozenset({SWEEP_STATE_SUCCEEDED, SWEEP_STATE_FAILED, SWEEP_STATE_CANCELLED})


def sweep_is_final(sweep: Sweep) -> bool:
    """Whether the sweep has ended; a state that is not known has not."""
    return sweep.state in FINAL_SWEEP_STATES


def is_final(job: Job) -> bool:
    """Whether the job has ended; a state that is not known has not."""
    return job.state in FINAL_STATES
