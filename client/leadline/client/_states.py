"""The states of a job."""

from leadline.v1.job_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_SUCCEEDED,
    Job,
)

FINAL_STATES = frozenset({JOB_STATE_SUCCEEDED, JOB_STATE_FAILED, JOB_STATE_CANCELLED})


def is_final(job: Job) -> bool:
    """Whether the job has ended; a state that is not known has not."""
    return job.state in FINAL_STATES
