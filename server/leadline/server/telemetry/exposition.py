"""The `/metrics` endpoint."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, make_wsgi_app

from leadline.server.thread_pool import ThreadPool

# The WSGI environment of a scrape.
_Environment = dict[str, str]


class Exposition:
    """Serves a registry from a thread: the gauges of jobs query the store."""

    def __init__(
        self, registry: CollectorRegistry, refresh: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Makes an endpoint; `refresh`, if any, is awaited before each scrape."""
        self._refresh = refresh
        # prometheus_client's own application handles formats, compression and parameters.
        self._application: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)
        self._threads = ThreadPool("metrics", 1)

    async def handle(self, request: web.Request) -> web.Response:
        """Answers a request of any method."""
        if self._refresh is not None:
            await self._refresh()
        environment = {
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            "HTTP_ACCEPT": request.headers.get(hdrs.ACCEPT, ""),
            "HTTP_ACCEPT_ENCODING": request.headers.get(hdrs.ACCEPT_ENCODING, ""),
        }
        return await self._threads.run(self._respond, environment)

    def close(self) -> None:
        """Stops the thread."""
        self._threads.close()

    def _respond(self, environment: _Environment) -> web.Response:
        response: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]]) -> None:
            response.update(status=int(status.partition(" ")[0]), headers=headers)

        body = b"".join(self._application(environment, start_response))
        return web.Response(body=body, **response)
