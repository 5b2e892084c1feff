"""The HTTP port: metrics and the live page."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry

from leadline.server.telemetry.exposition import Exposition
from leadline.server.telemetry.gate import HttpGate
from leadline.server.tls import Certificates, TlsCertificates
from leadline.server.transport.sockets import BACKLOG, are_descriptors_scarce, listen, port_of

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
        gate: admits all requests, those for metrics too.
    """

    routes: Iterable[web.AbstractRouteDef]
    handle: Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]
    set_headers: Callable[[web.Request, web.StreamResponse], Awaitable[None]]
    gate: HttpGate


class HttpPort:
    """Serves a registry and pages over HTTP, on the event loop that calls `open`."""

    def __init__(
        self,
        registry: CollectorRegistry,
        pages: Pages,
        refresh: Callable[[], Awaitable[None]] | None = None,
        tls: TlsCertificates | None = None,
    ) -> None:
        """Makes a port that `open` binds.

        Args:
            registry: the metrics.
            pages: what is served beside them.
            refresh: if given, is awaited before each scrape.
            tls: the certificates; None for plain text.
        """
        self._tls = tls
        self._listening: list[socket.socket] = []
        self._accepting: list[asyncio.Server] = []
        self._exposition = Exposition(registry, refresh)
        application = web.Application(middlewares=[_beside_metrics(pages), _behind(pages.gate)])
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
        self._listening = await listen(host, port)
        await self._serve(None if self._tls is None else self._tls.current)
        if self._tls is not None:
            self._tls.apply_with(self._serve)
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{in_url(host)}:{port_of(self._listening[0])}"

    async def close(self) -> None:
        """Stops serving."""
        for accepting in self._accepting:
            accepting.close()
        await self._runner.cleanup()
        for bound in self._listening:
            bound.close()
        self._exposition.close()

    async def _serve(self, certificates: Certificates | None) -> None:
        """Serves new connections with these certificates; open ones stay as they are.

        A context of OpenSSL cannot forget an authority, nor sessions that it has verified, so
        new certificates get a new one.
        """
        context = None if certificates is None else certificates.make_context()
        last, self._accepting = self._accepting, []
        loop = asyncio.get_running_loop()
        for bound in self._listening:
            accepting = await loop.create_server(
                self._connect, sock=bound.dup(), ssl=context, backlog=BACKLOG
            )
            self._accepting.append(accepting)
        for accepting in last:
            accepting.close()

    def _connect(self) -> asyncio.BaseProtocol:
        """The protocol of a new connection, which is closed at once if descriptors are scarce."""
        server = self._runner.server
        assert server is not None  # noqa: S101 - `open` has set it up
        return _Refused() if are_descriptors_scarce() else server()


class _Refused(asyncio.Protocol):
    """Closes its connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


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
