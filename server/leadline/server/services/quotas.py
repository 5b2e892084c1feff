"""The use case of quotas: what an identity may use, and what it uses."""

from collections.abc import Callable
from dataclasses import dataclass

from leadline.server.access.meter import UsageMeter
from leadline.server.access.quotas import Limits, Quotas, SharedLimits
from leadline.server.errors import PermissionDeniedError
from leadline.server.identity import Identity, Role
from leadline.server.storage.store import Store
from leadline.server.thread_pool import ThreadPool


@dataclass(frozen=True, kw_only=True)
class QuotaUse:
    """A limit and its use; either is None if there is none.

    Attributes:
        quota: the limit's key in the access file.
        limit: its value.
        used: what is in use.
    """

    quota: str
    limit: float | None
    used: float | None


@dataclass(frozen=True, kw_only=True)
class QuotaView:
    """The limits of an identity and of all callers together."""

    name: str
    limits: tuple[QuotaUse, ...]
    total: tuple[QuotaUse, ...]


class QuotaService:
    """Reads quotas and their use."""

    def __init__(
        self, *, store: Store, threads: ThreadPool, quotas: Callable[[], Quotas], meter: UsageMeter
    ) -> None:
        self._store = store
        self._threads = threads
        self._quotas = quotas
        self._meter = meter

    async def get(self, name: str, caller: Identity) -> QuotaView:
        """The quota of the identity `name`; "" for the caller's own.

        Raises:
            PermissionDeniedError: it is another's, and the caller no admin.
        """
        identity = caller
        if name and name != caller.name:
            if caller.role is not Role.ADMIN:
                raise PermissionDeniedError(
                    f"only {name} and admins may see the quota of {name}",
                    reason="NOT_OWNER",
                    metadata={"resource": f"quota of {name}", "owner": name},
                )
            identity = Identity(name, Role.TRAINER)
        quotas = self._quotas()
        own, total = await self._threads.run(
            lambda: (self._store.jobs.usage(identity.name), self._store.jobs.usage(None))
        )
        limits = quotas.owner(identity).limits
        return QuotaView(
            name=identity.name,
            limits=self._uses(identity.name, limits, own),
            total=self._uses("", quotas.total, total),
        )

    def _uses(
        self, name: str, limits: Limits | SharedLimits, stored: dict[str, int]
    ) -> tuple[QuotaUse, ...]:
        used: dict[str, float | None] = {
            **stored,
            "calls_in_flight": self._meter.calls(name),
            "predictions_per_second": self._meter.predictions(name),
        }
        return tuple(
            QuotaUse(quota=quota, limit=limit, used=used.get(quota)) for quota, limit in limits
        )
