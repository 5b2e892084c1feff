"""Builds the options of a job from the keyword arguments of `train`: see `_requests`."""

from datetime import timedelta
from typing import TypeAlias

from leadline.client._errors import invalid
from leadline.client._requests import duration, set_field
from leadline.v1.job_pb2 import (
    RETENTION_POLICY_ALL,
    RETENTION_POLICY_BEST_AND_LAST,
    RETENTION_POLICY_EVERY_NTH,
    JobOptions,
    Retention,
    RetentionPolicy,
)

TimeLimit: TypeAlias = float | timedelta
"""A duration; numbers are in seconds."""

RetentionLike: TypeAlias = Retention | str | int
"""A `Retention`, "all", "best_and_last", or a number n for every nth epoch."""

_POLICIES: dict[str, RetentionPolicy.ValueType] = {
    "all": RETENTION_POLICY_ALL,
    "best_and_last": RETENTION_POLICY_BEST_AND_LAST,
}


def job_options(
    *, priority: int | None, time_limit: TimeLimit | None, retention: RetentionLike | None
) -> JobOptions | None:
    """The options that are set; None if none is set."""
    if priority is None and time_limit is None and retention is None:
        return None
    options = JobOptions(
        time_limit=duration(_seconds(time_limit), "options.time_limit"),
        retention=None if retention is None else _retention(retention),
    )
    if priority is not None:
        set_field(options, "priority", priority, path="options.priority")
    return options


def _seconds(time_limit: TimeLimit | None) -> float | None:
    return time_limit.total_seconds() if isinstance(time_limit, timedelta) else time_limit


def _retention(value: RetentionLike) -> Retention:
    if isinstance(value, Retention):
        return value
    if isinstance(value, int):
        retention = Retention(policy=RETENTION_POLICY_EVERY_NTH)
        set_field(retention, "every_nth", value, path="options.retention.every_nth")
        return retention
    policy = _POLICIES.get(value.lower())
    if policy is None:
        known = ", ".join(_POLICIES)
        raise invalid(
            "options.retention", f"{value!r} is not one of {known}, nor a number of epochs"
        )
    return Retention(policy=policy)
