"""Quotas: how much each identity may use, and all callers together."""

from collections.abc import Mapping
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from leadline.server.errors import ResourceExhaustedError
from leadline.server.identity import Identity, Role

# What a core trains in about a year, in the unit of `leadline.models.cost.training_work`.
_A_YEAR = 2e17

_Count = Annotated[int, Field(ge=0)]

# When a request that is beyond a limit may be tried again: only other limits would help.
_NEVER_SECONDS = 86_400.0


class SharedLimits(BaseModel):
    """Limits that an identity has, and that all callers have together; None: no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calls_in_flight: _Count | None = None
    """Calls that have not ended, streams included."""

    predictions_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Images to classify; as many at once as in one second."""

    queued_jobs: _Count | None = None
    """Jobs that wait for a device."""

    running_jobs: _Count | None = None
    """Jobs that train; more wait in the queue."""

    stored_bytes: _Count | None = None
    """The files of all jobs; beyond it no job is accepted, and running ones are paused."""


class Limits(SharedLimits):
    """The limits of an identity."""

    priority: Annotated[int, Field(ge=-100, le=100)] | None = None
    """The highest priority of a job; admins may exceed it."""

    job_work: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = _A_YEAR
    """The work of a job, by `leadline.models.cost.training_work`; admins may exceed it."""

    upload_bytes: _Count | None = None
    """The largest request."""


class Owner(NamedTuple):
    """Whom new jobs belong to, and the limits that then apply.

    Attributes:
        name: the name of the identity; "" without authentication.
        limits: its limits.
        total: the limits of all callers together.
    """

    name: str
    limits: Limits
    total: SharedLimits


NOBODY = Owner("", Limits(job_work=None), SharedLimits())
"""The owner of what a caller of a server without authentication creates."""


def nobody(_name: str) -> Owner:
    """Any owner, without limits."""
    return NOBODY


class Quotas(BaseModel):
    """The table [quotas] of the access file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: Limits = Limits()
    """For each identity; its own table overrides it key by key."""

    total: SharedLimits = SharedLimits()
    """For all callers together."""

    identity: dict[str, Limits] = {}
    """By the identity's name."""

    def of(self, identity: Identity) -> Limits:
        """The limits of an identity."""
        own = self.identity.get(identity.name)
        limits = self.default
        if own is not None:
            limits = limits.model_copy(
                update={key: getattr(own, key) for key in own.model_fields_set}
            )
        if identity.role is Role.ADMIN:
            limits = limits.model_copy(update={"priority": None, "job_work": None})
        return limits

    @property
    def limits_running(self) -> bool:
        """Whether any quota limits running jobs."""
        every = (self.total, self.default, *self.identity.values())
        return any(limits.running_jobs is not None for limits in every)

    def may_run(self, name: str, running: Mapping[str, int]) -> bool:
        """Whether an owner may have one more running job.

        Args:
            name: the owner's name.
            running: the running jobs of each owner that has any.
        """
        total = self.total.running_jobs
        if total is not None and sum(running.values()) >= total:
            return False
        limit = self.owner(Identity(name, Role.TRAINER)).limits.running_jobs
        return limit is None or running.get(name, 0) < limit

    def owner(self, identity: Identity) -> Owner:
        """An identity as the owner of new jobs; a caller without a name has no limits."""
        return Owner(identity.name, self.of(identity), self.total) if identity.name else NOBODY


UNLIMITED = Quotas()
"""The quotas without an access file."""


def refused(
    quota: str, limit: float, value: float, *, who: str, advice: str
) -> ResourceExhaustedError:
    """The error of a single request that is beyond a limit; arguments as for `exceeded`."""
    return _error(
        f"the limit {quota} {_whose(who)} is {limit:,.10g}, and the request has {value:,.10g}: "
        f"{advice}",
        metadata=_metadata(quota, limit, value, who),
        retry_after=_NEVER_SECONDS,
    )


def exceeded(
    quota: str, limit: float, used: float, *, who: str, advice: str, retry_after: float
) -> ResourceExhaustedError:
    """The error of a quota.

    Args:
        quota: its key in the access file.
        limit: its value.
        used: what is in use, without the request.
        who: the identity's name; "" for all callers together.
        advice: what to do.
        retry_after: seconds after which to try again.
    """
    return _error(
        f"the quota {quota} {_whose(who)} is {limit:,.10g}, of which {used:,.10g} are in use: "
        f"{advice}",
        metadata=_metadata(quota, limit, used, who),
        retry_after=retry_after,
    )


def _whose(who: str) -> str:
    return f"of {who}" if who else "of all callers together"


def _error(message: str, *, metadata: dict[str, str], retry_after: float) -> ResourceExhaustedError:
    return ResourceExhaustedError(
        message, reason="QUOTA_EXCEEDED", metadata=metadata, retry_after=retry_after
    )


def _metadata(quota: str, limit: float, used: float, who: str) -> dict[str, str]:
    return {
        "quota": quota,
        "limit": f"{limit:.10g}",
        "used": f"{used:.10g}",
        "identity": who or "*",
    }
