"""What listens on a port and speaks HTTP/2."""

import asyncio
import socket
from typing import Any

from h2corn import Config, Server

# A dead caller is noticed within a minute: silent for so long, then asked so often.
_KEEPALIVE_IDLE_SECONDS = 40
_KEEPALIVE_INTERVAL_SECONDS = 5
_KEEPALIVE_PROBES = 4

_BACKLOG = 1_024

# Of one connection; more wait at the caller. A thousand watchers may share one.
_MAX_STREAMS = 10_000

# A message of as many bytes comes in one piece.
_FRAME_BYTES = 1 << 20

# A stream whose caller takes nothing for so long ends; those that follow a job
# can be taken up again where they ended.
_STALL_SECONDS = 600

# What is left when calls had their grace: the writing of their status.
_FLUSH_SECONDS = 2.0


class Listener:
    """Serves an application on a port."""

    def __init__(self, application: Any, *, grace_seconds: float, json_logs: bool) -> None:
        """Makes one of an ASGI application.

        Args:
            application: answers the requests.
            grace_seconds: what requests have to end in when it closes.
            json_logs: whether what it logs is JSON, else for people.
        """
        self._application = application
        self._grace_seconds = grace_seconds
        self._json_logs = json_logs
        self._server: Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Begins to serve; returns the port.

        Raises:
            OSError: the address or the port cannot be had.
        """
        with _bound(host, port) as listening:
            bound = int(listening.getsockname()[1])
            self._server = Server(self._application, self._config(listening))
            self._serving = asyncio.create_task(self._server.serve(), name="grpc")
            await self._server.wait_started()
        return bound

    def refuse_connections(self) -> None:
        """Takes no more connections, and asks those there are to open no more streams."""
        if self._server is not None:
            self._server.shutdown()

    async def close(self) -> None:
        """Ends, once what is written has left."""
        if self._serving is not None:
            self.refuse_connections()
            await self._serving

    def _config(self, listening: socket.socket) -> Config:
        return Config(
            bind=(f"fd://{listening.fileno()}",),
            grpc=True,
            http1=False,
            lifespan="off",
            access_log=False,
            date_header=False,
            log_format="json" if self._json_logs else "text",
            runtime_threads=1,
            backlog=_BACKLOG,
            max_concurrent_streams=_MAX_STREAMS,
            h2_max_inbound_frame_size=_FRAME_BYTES,
            timeout_keep_alive=0,
            timeout_graceful_shutdown=self._grace_seconds + _FLUSH_SECONDS,
            h2_timeout_response_stall=_STALL_SECONDS,
        )


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit these.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_SECONDS)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_SECONDS)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
        listening.bind(address)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening
