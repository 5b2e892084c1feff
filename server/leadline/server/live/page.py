"""Puts the page together, or says why there is none."""

import ipaddress
from contextlib import AsyncExitStack
from pathlib import Path

from leadline.server.live.broadcast import Broadcast
from leadline.server.live.details import Details
from leadline.server.live.routes import Handlers, absent
from leadline.server.live.security_middleware import Guard
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.serving.catalog import Catalog
from leadline.server.settings import Settings
from leadline.server.storage.store import Store
from leadline.server.telemetry.port import Pages
from leadline.server.thread_pool import ThreadPool

# For blocking calls: the page has its own, so that it keeps no caller of gRPC waiting.
_THREADS = 2


def is_shown(settings: Settings) -> bool:
    """Whether the HTTP port shows the page: by itself only where it is on loopback."""
    if settings.live_page == "auto":
        return is_loopback(settings.metrics_host)
    return settings.live_page == "on"


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def make_pages(
    settings: Settings,
    *,
    store: Store,
    notifier: JobNotifier,
    catalog: Catalog,
    dataset_cache: Path,
    stack: AsyncExitStack,
) -> Pages:
    """The page, or what says why there is none.

    Args:
        settings: whether it is shown, and to whom.
        store: where jobs are kept.
        notifier: who tells that there is news.
        catalog: finds checkpoints.
        dataset_cache: where the images are.
        stack: ends the page's threads.
    """
    guard = Guard([*settings.live_page_host_names, settings.metrics_host])
    if not is_shown(settings):
        return Pages(routes=absent(_why(settings)), around=guard.around, prepare=guard.prepare)
    threads = ThreadPool("page", _THREADS)
    stack.callback(threads.close)
    quiet = settings.stream_keepalive_seconds
    handlers = Handlers(
        Broadcast(store=store, threads=threads, notifier=notifier, quiet_seconds=quiet),
        Details(store=store, threads=threads, catalog=catalog, dataset_cache=dataset_cache),
    )
    return Pages(routes=handlers.routes(), around=guard.around, prepare=guard.prepare)


def _why(settings: Settings) -> str:
    reason = (
        "as --live-page says"
        if settings.live_page == "off"
        else f"as {settings.metrics_host} is not on loopback"
    )
    return f"the live page is off, {reason}; --live-page on shows it to whoever can reach this port"
