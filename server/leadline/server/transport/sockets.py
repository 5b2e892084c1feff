"""Opens listening sockets, and reports errors that a person can act on."""

import asyncio
import errno
import resource
import socket
from typing import Any

# Detects a dead connection within a minute, idle or with unacknowledged data.
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 40,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 4,
    socket.TCP_USER_TIMEOUT: 60_000,
}

_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

BACKLOG = 1_024

# Descriptors for files, for pipes to workers, and for libraries.
_OTHER_DESCRIPTORS = 256


async def listen(host: str, port: int) -> list[socket.socket]:
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
        # With port 0 all sockets use the first socket's port.
        chosen = port_of(listening[0]) if listening else port
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
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def most_connections() -> int:
    """The most connections that leave descriptors for other uses; more wait in the backlog."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else max(soft - _OTHER_DESCRIPTORS, soft // 2)


def port_of(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])
