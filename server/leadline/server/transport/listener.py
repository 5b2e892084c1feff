"""Listens on a port and serves an application over HTTP/2."""

import asyncio
import errno
import resource
import socket
from contextlib import suppress
from typing import Any

from h2corn import Config, Server

# A dead connection is noticed within a minute, idle or with unacknowledged data.
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 40,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 4,
    socket.TCP_USER_TIMEOUT: 60_000,
}

_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

_BACKLOG = 1_024

# Per connection; clients queue further calls. A thousand watchers may share one.
_MAX_STREAMS = 2_000

# A message of up to this size arrives in one frame.
_FRAME_BYTES = 1 << 20

# The most metadata of a call: more than gRPC's own servers accept.
_HEADER_BYTES = 1 << 16

# Descriptors that are not connections: files, pipes to workers, those of libraries.
_OTHER_DESCRIPTORS = 256

# An idle connection is closed after this; clients open another for their next call.
_IDLE_SECONDS = 300

# A stream whose caller reads nothing for this long ends; those that watch a job
# can be resumed where they ended.
_STALL_SECONDS = 600


class Listener:
    """Serves an application on a port."""

    def __init__(self, application: Any, *, grace_seconds: float, json_logs: bool) -> None:
        """Makes a listener; `start` binds it.

        Args:
            application: an ASGI application.
            grace_seconds: time for requests to end, and their responses to be sent,
                when the listener closes.
            json_logs: whether to log JSON instead of text.
        """
        self._application = application
        self._grace_seconds = grace_seconds
        self._json_logs = json_logs
        self._server: Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._listening: list[socket.socket] = []

    async def start(self, host: str, port: int) -> int:
        """Starts to serve; returns the port.

        Raises:
            OSError: the address or the port is not available.
        """
        self._listening = await _bound(host, port)
        self._server = Server(self._application, self._config(self._listening))
        self._serving = asyncio.create_task(self._server.serve(), name="grpc")
        try:
            await self._server.wait_started()
        except BaseException:
            await self.close()
            raise
        return _port_of(self._listening[0])

    def refuse_connections(self) -> None:
        """Accepts no more connections, and sends GOAWAY on those that are open."""
        if self._server is not None:
            self._server.shutdown()
        # Otherwise the kernel would still accept connections, which nobody serves.
        for bound in self._listening:
            with suppress(OSError):  # it was shut down before
                bound.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """Stops serving, after flushing what was written."""
        if self._serving is None:
            return
        self.refuse_connections()
        await asyncio.wait({self._serving})  # `wait_broken` raises its error
        for bound in self._listening:
            bound.close()

    async def wait_broken(self) -> None:
        """Waits until the listener fails, that is, ends without `close`.

        Raises:
            Exception: why it ended.
        """
        if self._serving is not None:
            await asyncio.shield(self._serving)
            raise OSError("the HTTP/2 listener has ended")

    def _config(self, listening: list[socket.socket]) -> Config:
        return Config(
            bind=tuple(f"fd://{bound.fileno()}" for bound in listening),
            grpc=True,
            http1=False,
            lifespan="off",
            access_log=False,
            date_header=False,
            log_format="json" if self._json_logs else "text",
            runtime_threads=1,
            backlog=_BACKLOG,
            limit_connections=_most_connections(),
            max_concurrent_streams=_MAX_STREAMS,
            h2_max_header_list_size=_HEADER_BYTES,
            h2_max_header_block_size=_HEADER_BYTES,
            limit_request_fields=0,  # the limit is in bytes, above
            h2_max_inbound_frame_size=_FRAME_BYTES,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=self._grace_seconds,
            h2_timeout_response_stall=_STALL_SECONDS,
        )


async def _bound(host: str, port: int) -> list[socket.socket]:
    """Sockets on each of the host's addresses that this machine has, all on one port.

    Raises:
        OSError: the host is unknown, or an address is not available.
    """
    try:
        resolved = await asyncio.get_running_loop().getaddrinfo(
            host.removeprefix("[").removesuffix("]"),
            port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except UnicodeError as error:
        raise OSError(errno.EINVAL, "not a valid host name") from error
    addresses = list(dict.fromkeys((info[0], info[4]) for info in resolved))
    listening: list[socket.socket] = []
    for number, (family, address) in enumerate(addresses, start=1):
        # With port 0 all sockets use the first one's port.
        chosen = _port_of(listening[0]) if listening else port
        try:
            listening.append(_listen(family, (address[0], chosen, *address[2:])))
        except OSError as error:
            # "localhost" resolves to an IPv6 address even if IPv6 is disabled.
            is_last_hope = number == len(addresses) and not listening
            if error.errno in _NOT_HERE and not is_last_hope:
                continue
            for bound in listening:
                bound.close()
            raise
    return listening


def _listen(family: int, address: tuple[Any, ...]) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and address[0] != "::":
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Connections inherit these.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            listening.setsockopt(socket.IPPROTO_TCP, option, value)
        listening.bind(address)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _most_connections() -> int:
    """As many as leave descriptors for everything else; more wait in the backlog."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else max(soft - _OTHER_DESCRIPTORS, soft // 2)


def _port_of(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])
