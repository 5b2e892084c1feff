"""`/metrics`, as Prometheus asks for it."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, make_wsgi_app

from leadline.server.thread_pool import ThreadPool

# What a scrape says to the application of Prometheus's own client.
_Environment = dict[str, str]


class Exposition:
    """Writes a registry for whoever asks, in a thread: the gauges of jobs ask the store."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # The client's own application knows formats, compression and parameters.
        self._application: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)
        self._threads = ThreadPool("metrics", 1)

    async def handle(self, request: web.Request) -> web.Response:
        """Answers a request of any method."""
        environment = {
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            "HTTP_ACCEPT": request.headers.get(hdrs.ACCEPT, ""),
            "HTTP_ACCEPT_ENCODING": request.headers.get(hdrs.ACCEPT_ENCODING, ""),
        }
        # A scraper that gives up does not end what is asked of the store for it.
        return await asyncio.shield(self._threads.run(self._respond, environment))

    def close(self) -> None:
        """Ends its thread."""
        self._threads.close()

    def _respond(self, environment: _Environment) -> web.Response:
        told: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]]) -> None:
            told.update(status=int(status.partition(" ")[0]), headers=headers)

        body = b"".join(self._application(environment, start_response))
        return web.Response(body=body, **told)
