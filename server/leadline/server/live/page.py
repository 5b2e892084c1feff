"""Builds the page, or routes that explain why it is not shown."""

from contextlib import AsyncExitStack
from pathlib import Path

from leadline.server.access.audit import AuditLog
from leadline.server.access.control import AccessControl
from leadline.server.access.sessions import Sessions
from leadline.server.live.broadcast import Broadcast
from leadline.server.live.details import Details
from leadline.server.live.login import PUBLIC_PATHS, LoginRoutes
from leadline.server.live.routes import LiveRoutes, absent
from leadline.server.live.security_middleware import SecurityMiddleware
from leadline.server.live.sweeps import SweepRoutes
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.services.activity import ActivityService
from leadline.server.services.inspection import InspectionService
from leadline.server.services.large_reads import ReadLane
from leadline.server.services.models import ModelService
from leadline.server.serving.catalog import Catalog
from leadline.server.settings import Settings
from leadline.server.storage.store import Store
from leadline.server.telemetry.gate import HttpGate
from leadline.server.telemetry.port import Pages
from leadline.server.thread_pool import ThreadPool
from leadline.server.transport.sockets import is_loopback

# The page has its own threads, so that it does not delay gRPC calls. It is a single
# caller, and a caller never gets the last thread of a lane.
_THREADS = 2


def is_shown(settings: Settings, access: AccessControl) -> bool:
    """Whether the HTTP port shows the page; by default on loopback, or to known callers."""
    if settings.live_page == "auto":
        return is_loopback(settings.metrics_host) or access.is_required
    return settings.live_page == "on"


def make_pages(
    settings: Settings,
    *,
    access: AccessControl,
    store: Store,
    notifier: JobNotifier,
    catalog: Catalog,
    dataset_cache: Path,
    audit: AuditLog | None = None,
    stack: AsyncExitStack,
) -> Pages:
    """Builds the page, or routes that explain its absence; `stack` ends the page's threads."""
    security = SecurityMiddleware([*settings.live_page_host_names, settings.metrics_host])
    sessions = Sessions(access, audit)
    routes = absent(_reason(settings))
    public: tuple[str, ...] = ()
    if is_shown(settings, access):
        threads, lane = ThreadPool("page", _THREADS), ReadLane("page-reads", _THREADS + 1)
        stack.callback(threads.close)
        stack.callback(lane.close)
        models = ModelService(store=store, threads=threads, large_reads=lane, catalog=catalog)
        broadcast = Broadcast(
            activity=ActivityService(store=store, threads=threads, notifier=notifier),
            notifier=notifier,
            quiet_seconds=settings.stream_keepalive_seconds,
        )
        inspection = InspectionService(models=models, lane=lane, dataset_cache=dataset_cache)
        details = LiveRoutes(broadcast, Details(models, inspection))
        sweeps = SweepRoutes(store=store, threads=threads)
        login = LoginRoutes(access, sessions)
        routes = (*details.routes(), *sweeps.routes(), *login.routes())
        public = PUBLIC_PATHS
    return Pages(
        routes=routes,
        handle=security.handle,
        set_headers=security.set_headers,
        gate=HttpGate(access, sessions, public, audit),
    )


def _reason(settings: Settings) -> str:
    reason = (
        "as --live-page says"
        if settings.live_page == "off"
        else f"as {settings.metrics_host} is not on loopback"
    )
    return f"the live page is off, {reason}; --live-page on shows it to all who reach this port"
