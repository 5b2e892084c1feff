"""Puts the page together, or says why there is none."""

import ipaddress

from leadline.server.live.broadcast import Broadcast
from leadline.server.live.details import Details
from leadline.server.live.guard import Guard
from leadline.server.live.handlers import Handlers, absent
from leadline.server.settings import Settings
from leadline.server.telemetry.port import Pages


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


def shown_page(settings: Settings, broadcast: Broadcast, details: Details) -> Pages:
    """The page."""
    guard = Guard([*settings.live_page_host_names, settings.metrics_host])
    handlers = Handlers(broadcast, details)
    return Pages(routes=handlers.routes(), around=guard.around, prepare=guard.prepare)


def no_page(settings: Settings) -> Pages:
    """What is in its place."""
    guard = Guard([*settings.live_page_host_names, settings.metrics_host])
    reason = (
        "the live page is off, as --live-page says"
        if settings.live_page == "off"
        else f"the live page is off, as {settings.metrics_host} is not on loopback"
    )
    routes = absent(f"{reason}; --live-page on shows it to whoever can reach this port")
    return Pages(routes=routes, around=guard.around, prepare=guard.prepare)
