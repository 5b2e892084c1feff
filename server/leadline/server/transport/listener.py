"""What listens on a port and speaks HTTP/2."""

import asyncio
import errno
import resource
import socket
from contextlib import suppress
from typing import Any

from h2corn import Config, Server

# A dead caller is noticed within a minute: one that is silent, and one that
# takes nothing of what is sent to it.
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 40,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 4,
    socket.TCP_USER_TIMEOUT: 60_000,
}

_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

_BACKLOG = 1_024

# Of one connection; more wait at the caller. A thousand watchers may share one.
_MAX_STREAMS = 2_000

# A message of as many bytes comes in one piece.
_FRAME_BYTES = 1 << 20

# What a caller may say of a call beside its messages: more than gRPC's own servers take.
_HEADER_BYTES = 1 << 16

# Descriptors that are no connections: files, pipes to workers, what libraries need.
_OTHER_DESCRIPTORS = 256

# A connection without a call for so long is closed; clients open another with their next.
_IDLE_SECONDS = 300

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
        self._listening: list[socket.socket] = []

    async def start(self, host: str, port: int) -> int:
        """Begins to serve; returns the port.

        Raises:
            OSError: the address or the port cannot be had.
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
        """Takes no more connections, and asks those there are to open no more streams."""
        if self._server is not None:
            self._server.shutdown()
        # Else the kernel would go on to take some, which nobody then serves.
        for one in self._listening:
            with suppress(OSError):  # it was done before
                one.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """Ends, once what is written has left."""
        if self._serving is None:
            return
        self.refuse_connections()
        await asyncio.wait({self._serving})  # what may have ended it before, `wait_broken` tells
        for one in self._listening:
            one.close()

    async def wait_broken(self) -> None:
        """Waits until it serves no more, though nobody has closed it.

        Raises:
            Exception: what has ended it.
        """
        if self._serving is not None:
            await asyncio.shield(self._serving)
            raise OSError("HTTP/2 is spoken no more")

    def _config(self, listening: list[socket.socket]) -> Config:
        return Config(
            bind=tuple(f"fd://{one.fileno()}" for one in listening),
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
            limit_request_fields=0,  # their bytes are limited
            h2_max_inbound_frame_size=_FRAME_BYTES,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=self._grace_seconds + _FLUSH_SECONDS,
            h2_timeout_response_stall=_STALL_SECONDS,
        )


async def _bound(host: str, port: int) -> list[socket.socket]:
    """Sockets on every address of a host that this machine has, all on the same port.

    Raises:
        OSError: the host is not known, or an address cannot be had.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host.removeprefix("[").removesuffix("]"),
            port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except UnicodeError as error:
        raise OSError(errno.EINVAL, "that is no name of a host") from error
    addresses = list(dict.fromkeys((one[0], one[4]) for one in found))
    listening: list[socket.socket] = []
    for number, (family, address) in enumerate(addresses, start=1):
        # Where any port will do, all take the first one's.
        chosen = _port_of(listening[0]) if listening else port
        try:
            listening.append(_listen(family, (address[0], chosen, *address[2:])))
        except OSError as error:
            # "localhost" has an address of IPv6 also where that is switched off.
            is_last_hope = number == len(addresses) and not listening
            if error.errno in _NOT_HERE and not is_last_hope:
                continue
            for one in listening:
                one.close()
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
    """As many as leave descriptors for all else; more wait until others have gone."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else max(soft - _OTHER_DESCRIPTORS, soft // 2)


def _port_of(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])
