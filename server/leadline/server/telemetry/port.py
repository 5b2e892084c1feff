"""The HTTP port: metrics and the live page."""

import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry

from leadline.server.telemetry.exposition import Exposition
from leadline.server.telemetry.gate import HttpGate

_METRICS = "/metrics"

# Requests that are still open after this time are aborted; streams end before.
_CLOSE_SECONDS = 2.0


class _Answerable(logging.Filter):
    """Drops log records of malformed HTTP requests, which receive status 400."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError)


_LOGGER = logging.getLogger(__name__)
_LOGGER.addFilter(_Answerable())


@dataclass(frozen=True, kw_only=True)
class Pages:
    """The pages served beside the metrics.

    Attributes:
        routes: the pages.
        handle: middleware of every request except those for metrics, including
            requests that match no route.
        set_headers: changes the headers of all responses to these requests.
        public: the beginnings of paths that need no identity.
    """

    routes: Iterable[web.AbstractRouteDef]
    handle: Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]
    set_headers: Callable[[web.Request, web.StreamResponse], Awaitable[None]]
    public: tuple[str, ...]


class HttpPort:
    """Serves a registry and pages over HTTP, on the event loop that calls `open`."""

    def __init__(
        self,
        registry: CollectorRegistry,
        pages: Pages,
        gate: HttpGate,
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Makes a port that `open` binds.

        Args:
            registry: the metrics.
            pages: what is served beside them.
            gate: admits all requests.
            refresh: if given, is awaited before each scrape.
        """
        self._exposition = Exposition(registry, refresh)
        application = web.Application(middlewares=[_beside_metrics(pages), _behind(gate)])
        application.router.add_route("*", _METRICS, self._exposition.handle)
        application.add_routes(pages.routes)
        application.on_response_prepare.append(_prepare_beside_metrics(pages))
        self._runner = web.AppRunner(
            application,
            access_log=None,
            logger=_LOGGER,
            handle_signals=False,
            # A disconnected client cancels its handler, streams included.
            handler_cancellation=True,
            shutdown_timeout=_CLOSE_SECONDS,
        )

    async def open(self, host: str, port: int) -> str:
        """Starts to serve.

        Returns:
            The URL without a path.

        Raises:
            OSError: the address or the port is not available.
        """
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return f"http://{in_url(host)}:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        """Stops serving."""
        await self._runner.cleanup()
        self._exposition.close()


def in_url(host: str) -> str:
    """A host in the form that URLs use: IPv6 addresses in brackets."""
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
        return await pages.handle(request, handler)

    return around


def _behind(gate: HttpGate) -> Middleware:
    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await gate.handle(request, handler)

    return admit


def _prepare_beside_metrics(
    pages: Pages,
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    async def prepare(request: web.Request, response: web.StreamResponse) -> None:
        if request.path != _METRICS:
            await pages.set_headers(request, response)

    return prepare
