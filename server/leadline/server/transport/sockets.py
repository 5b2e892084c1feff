"""Opens listening sockets, and reports errors that a person can act on."""

import asyncio
import errno
import ipaddress
import os
import resource
import socket
from collections.abc import Collection
from contextlib import suppress
from typing import Any

# Detects a dead connection within a minute, idle or with unacknowledged data.
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 40,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 4,
    socket.TCP_USER_TIMEOUT: 60_000,
}

_INTERNET = frozenset({socket.AF_INET, socket.AF_INET6})

_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

BACKLOG = 1_024

# Descriptors for files, for pipes to workers, and for libraries.
_OTHER_DESCRIPTORS = 256

# Of these, what connections to the HTTP port leave free.
_LEAST_DESCRIPTORS = 96

_MOST_LINKED_CALLS = 1 << 16


def is_loopback(host: str) -> bool:
    """Whether an address is reachable only from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


async def listen(host: str, port: int, *, shares_port: bool = False) -> list[socket.socket]:
    """Sockets on each of the host's addresses that this machine has, all on one port.

    Args:
        host: a name or an address.
        port: the port; 0 for a free one.
        shares_port: whether other processes that also set it may listen on the port. The
            kernel then assigns each connection to one of them, by a hash of its addresses.

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
            bound = _listen(family, (address[0], chosen, *address[2:]), shares_port=shares_port)
            listening.append(bound)
        except OSError as error:
            # "localhost" resolves to an IPv6 address even if IPv6 is disabled.
            is_last_hope = number == len(addresses) and not listening
            if error.errno in _NOT_HERE and not is_last_hope:
                continue
            for bound in listening:
                bound.close()
            raise
    return listening


async def free_port(host: str, port: int) -> int:
    """A port on which nobody listens: `port`, or any if it is 0.

    Raises:
        OSError: the host is unknown, or an address is not available.
    """
    listening = await listen(host, port)
    free = port_of(listening[0])
    for bound in listening:
        bound.close()
    return free


def _listen(family: int, address: tuple[Any, ...], *, shares_port: bool) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shares_port))
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


def connections(port: int, known: Collection[Any] = ()) -> dict[Any, socket.socket]:
    """Duplicates of the connections of this process that arrived at a port; blocks.

    A connection stays open until its duplicate is closed, too.

    Args:
        port: the port.
        known: addresses of other ends whose connections are left out.

    Returns:
        The duplicates by the addresses of the other ends.
    """
    duplicates: dict[Any, socket.socket] = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are numbers, not files
        with suppress(OSError):  # no connection, closed meanwhile, or too many descriptors
            sock = socket.socket(fileno=int(name))
            try:
                is_here = sock.family in _INTERNET and port_of(sock) == port
                peer = sock.getpeername()
                if is_here and peer not in duplicates and peer not in known:
                    duplicates[peer] = sock.dup()
            finally:
                sock.detach()  # its library closes it
    return duplicates


def most_connections(*, shares_port: bool = False) -> int:
    """The most connections that leave descriptors for other uses; more wait in the backlog."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 0
    others = _OTHER_DESCRIPTORS + (most_linked_calls() if shares_port else 0)
    return max(soft - others, soft // 2)


def are_descriptors_scarce() -> bool:
    """Whether so few descriptors are left that other parts of the server could fail."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        lowest = os.open(os.devnull, os.O_RDONLY)  # the kernel gives the lowest free number
    except OSError:
        return True
    os.close(lowest)
    return soft != resource.RLIM_INFINITY and lowest >= soft - _LEAST_DESCRIPTORS


def most_linked_calls() -> int:
    """The most calls in flight between the processes of a server."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_LINKED_CALLS
    return most if soft == resource.RLIM_INFINITY else min(most, soft // 4)


def port_of(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])
