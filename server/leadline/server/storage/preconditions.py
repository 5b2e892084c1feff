"""Checks that jobs and sweeps share: request ids, room in the queue, deletion."""

from sqlalchemy import Connection

from leadline.server.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    ResourceExhaustedError,
)
from leadline.server.jobs.states import JobState
from leadline.server.storage.queries import IS_QUEUED, count_jobs
from leadline.server.sweeps.sweep import SweepState


def check_same_request(request_id: str | None, name: str, *, is_same: bool) -> None:
    """Checks that a repeated request id, which belongs to `name`, comes with the same request.

    Raises:
        AlreadyExistsError: the request differs.
    """
    if not is_same:
        raise AlreadyExistsError(
            f"request id {request_id} stands for {name}, which was submitted with other "
            "values: use a new id for a new request",
            reason="REQUEST_ID_REUSED",
            resource_name=name,
        )


def check_queue_room(connection: Connection, count: int, *, max_queued: int) -> None:
    """Checks that the queue has room for `count` new jobs.

    Raises:
        ResourceExhaustedError: more than `max_queued` jobs would be queued.
    """
    queued = count_jobs(connection, IS_QUEUED)
    if queued + count > max_queued:
        raise ResourceExhaustedError(
            f"{queued} jobs are queued, and {count} more would exceed the limit of "
            f"{max_queued}: try again later",
            reason="JOB_QUEUE_FULL",
            retry_after=30.0,
        )


def check_deletable(kind: str, name: str, state: JobState | SweepState, *, reason: str) -> None:
    """Checks that a job or a sweep is in a final state.

    Raises:
        FailedPreconditionError: the state is not final.
    """
    if not state.is_final:
        raise FailedPreconditionError(
            f"{kind} {name} is {state}: cancel it before you delete it",
            reason=reason,
            metadata={kind: name, "state": state.value},
        )
