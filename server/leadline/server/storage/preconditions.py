"""Checks that jobs and sweeps share: request ids, room in the queue, quotas, deletion."""

import json
import uuid

from sqlalchemy import Connection, func, select

from leadline.server.access.quotas import Owner, exceeded
from leadline.server.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    ResourceExhaustedError,
)
from leadline.server.jobs.states import JobState
from leadline.server.storage.queries import IS_QUEUED, count_jobs
from leadline.server.storage.tables import jobs, owner_bytes
from leadline.server.sweeps.sweep import SweepState

_RETRY_SECONDS = 30.0


def request_key(request_id: str | None, owner: str) -> str | None:
    """The value of the column `request_id`: each owner has request ids of its own."""
    if not request_id or not owner:
        return request_id or None
    return str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps([owner, request_id])))


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


def check_queue_room(connection: Connection, count: int, owner: Owner, *, max_queued: int) -> None:
    """Checks that the queue has room for `count` new jobs of an owner, and the quotas allow them.

    Raises:
        ResourceExhaustedError: more than `max_queued` jobs would be queued, or a quota exceeded.
    """
    check_quotas(connection, count, owner)
    queued = count_jobs(connection, IS_QUEUED)
    if queued + count > max_queued:
        raise ResourceExhaustedError(
            f"{queued} jobs are queued, and {count} more would exceed the limit of "
            f"{max_queued}: try again later",
            reason="JOB_QUEUE_FULL",
            retry_after=_RETRY_SECONDS,
        )


def check_quotas(connection: Connection, count: int, owner: Owner) -> None:
    """Checks that the quotas allow an owner `count` more queued jobs, and their files.

    Raises:
        ResourceExhaustedError: a quota would be exceeded.
    """
    is_own = jobs.c.owner == owner.name
    for who, limits in ((owner.name, owner.limits), ("", owner.total)):
        if limits.queued_jobs is None:
            continue
        queued = count_jobs(connection, IS_QUEUED & is_own if who else IS_QUEUED)
        if queued + count > limits.queued_jobs:
            raise exceeded(
                "queued_jobs",
                limits.queued_jobs,
                queued,
                who=who,
                advice=f"{count} more would exceed it; wait until jobs start, or cancel some",
                retry_after=_RETRY_SECONDS,
            )
    check_stored_bytes(connection, owner)


def check_stored_bytes(connection: Connection, owner: Owner) -> None:
    """Checks that the quotas allow an owner more files.

    Raises:
        ResourceExhaustedError: the files have more bytes than a quota allows.
    """
    for who, limits in ((owner.name, owner.limits), ("", owner.total)):
        if limits.stored_bytes is None:
            continue
        stored = stored_bytes(connection, who or None)
        if stored >= limits.stored_bytes:
            raise exceeded(
                "stored_bytes",
                limits.stored_bytes,
                stored,
                who=who,
                advice="delete jobs that you no longer need",
                retry_after=_RETRY_SECONDS,
            )


def stored_bytes(connection: Connection, owner: str | None) -> int:
    """The bytes of the files of an owner's jobs when they were last measured; None: of all."""
    query = select(func.coalesce(func.sum(owner_bytes.c.bytes), 0))
    if owner is not None:
        query = query.where(owner_bytes.c.owner == owner)
    return int(connection.execute(query).scalar_one())


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
