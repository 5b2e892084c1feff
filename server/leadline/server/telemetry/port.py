"""The HTTP port: metrics, and whatever pages there are beside them."""

import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry

from leadline.server.telemetry.exposition import Exposition

_METRICS = "/metrics"

# What is then not answered is cut: streams have ended long before.
_CLOSE_SECONDS = 2.0


class _Answerable(logging.Filter):
    """Passes over requests that are no HTTP: they are answered with status 400, and no fault."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError)


_LOGGER = logging.getLogger(__name__)
_LOGGER.addFilter(_Answerable())


@dataclass(frozen=True, kw_only=True)
class Pages:
    """What is served beside the metrics.

    Attributes:
        routes: the pages.
        around: goes around every request but those for metrics, also for what
            is at no route.
        prepare: has the last word on the headers of every answer to those.
    """

    routes: Iterable[web.AbstractRouteDef]
    around: Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]
    prepare: Callable[[web.Request, web.StreamResponse], Awaitable[None]]


class HttpPort:
    """Serves a registry and pages over HTTP, on the event loop that it is opened on."""

    def __init__(self, registry: CollectorRegistry, pages: Pages) -> None:
        """Makes a port that `open` binds."""
        self._exposition = Exposition(registry)
        application = web.Application(middlewares=[_beside_metrics(pages)])
        application.router.add_route("*", _METRICS, self._exposition.handle)
        application.add_routes(pages.routes)
        application.on_response_prepare.append(_prepare_beside_metrics(pages))
        self._runner = web.AppRunner(
            application,
            access_log=None,
            logger=_LOGGER,
            handle_signals=False,
            # Nothing is done, and no stream kept, for who is gone.
            handler_cancellation=True,
            shutdown_timeout=_CLOSE_SECONDS,
        )

    async def open(self, host: str, port: int) -> str:
        """Begins to serve.

        Returns:
            The URL that it serves at, without a path.

        Raises:
            OSError: the address or the port cannot be had.
        """
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return f"http://{in_url(host)}:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        """Ends."""
        await self._runner.cleanup()
        self._exposition.close()


def in_url(host: str) -> str:
    """A host as it stands in a URL."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return f"[{host}]" if isinstance(address, ipaddress.IPv6Address) else host


def _beside_metrics(pages: Pages) -> Middleware:
    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path == _METRICS:
            return await handler(request)
        return await pages.around(request, handler)

    return around


def _prepare_beside_metrics(
    pages: Pages,
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    async def prepare(request: web.Request, response: web.StreamResponse) -> None:
        if request.path != _METRICS:
            await pages.prepare(request, response)

    return prepare
