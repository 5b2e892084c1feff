"""Limits the memory of calls without a message, and of messages that core still receives."""

import asyncio
import os
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from typing import Protocol, cast

import grpc

from leadline.server.errors import ResourceExhaustedError
from leadline.server.thread_pool import ThreadPool
from leadline.server.transport.budget import Charge
from leadline.server.transport.call import Call
from leadline.server.transport.calls import Calls
from leadline.server.transport.messages import BEGINNING, MessageIntake, seconds_to_arrive, too_slow

_PERIOD_SECONDS = 0.05

# If no call waits for a message, one check in several suffices.
_IDLE_PERIODS = 4

# The most bytes before the first call of a connection. Flow control holds back its messages, so
# only frames that carry no message exceed this, such as headers that never end.
_BYTES_BEFORE_CALLS = 1 << 20

# Received bytes to discard at a time, and how often at most.
_DISCARDED_BYTES = 1 << 20
_DISCARDS = 64

# For this long, core may still deliver calls of a connection that was ended.
_HOSTILE_SECONDS = 60

# The memory of a waiting call in addition to its headers: its task and its stream.
_CALL_BYTES = 1 << 13

# Received bytes of a message in addition to its content: frames and compressed headers.
_OVERHEAD_BYTES = 512

# The count of received bytes in Linux's tcp_info.
_RECEIVED = struct.Struct("<Q")
_RECEIVED_AT = 128
_INFO_BYTES = 256


class CoreMessages(Protocol):
    """The messages of a call that core receives."""

    @property
    def pending_read(self) -> int:
        """The number, from 1, of the read that waits for the caller; 0 if none waits."""


class Arrivals:
    """Charges the budget of messages for memory that readers do not see.

    Until its first message has arrived, a call is charged for its headers. Core gives a
    message to its reader once it is complete, and does not report how much it holds
    before. But the kernel counts the bytes that each connection has received. While a
    reader waits, core holds the difference between these and the bytes given to readers.
    If no reader waits, the count restarts at zero, so that small errors do not add up.

    It also ends connections that only cost: those whose metadata exceeds the limit, and
    those that send much before their first call.
    """

    def __init__(self, calls: Calls, intake: MessageIntake) -> None:
        self._calls = calls
        self._intake = intake
        self._pool = ThreadPool("arrivals", 1)
        self._reads: dict[Call, tuple[int, float]] = {}  # a read's number and time
        self._headers: dict[Call, Charge] = {}
        self._connections: dict[str, _Connection] = {}
        self._given: Counter[str] = Counter()
        self._port = 0
        self._callers: set[str] = set()  # connections whose calls began since the last check
        self._last_callers: set[str] = set()
        self._hostile: dict[str, float] = {}  # connections to end, with the time of the violation

    async def watch(self, port: int) -> None:
        """Checks the calls and the connections to a port periodically, until it is cancelled."""
        self._port = port
        idle = 0
        try:
            while True:
                await asyncio.sleep(_PERIOD_SECONDS)
                idle = idle + 1 if self._is_idle() else 0
                if idle % _IDLE_PERIODS:
                    continue
                # Read before the kernel's counts, which then include all bytes given to readers.
                given, self._given = self._given, Counter()
                received = await self._pool.run(_received_bytes, port, self._hostile)
                self._look(received, given)
        finally:
            self._pool.close()

    def begin(self, connection: str) -> bool:
        """Records that a call begins; returns False if its connection is being ended."""
        self._callers.add(connection)
        return connection not in self._hostile

    def end(self, connection: str, *, is_urgent: bool = False) -> None:
        """Ends a connection at the next check, or now if it is urgent, and refuses its calls."""
        self._hostile[connection] = time.monotonic()
        if is_urgent:
            _received_bytes(self._port, {connection})

    def give(self, connection: str, size: int) -> None:
        """Records that core has given a message of this size to its reader."""
        held = self._connections.get(connection)
        if held is not None and held.size:
            taken = min(held.size, size)
            size -= taken
            held.size -= taken
            held.charge.resize(held.charged)
        self._given[connection] += size + _OVERHEAD_BYTES

    def _is_idle(self) -> bool:
        """Whether no call waits for a message now, nor did at the last check."""
        waits = any(_pending_read(call) for call in self._calls)
        return not (waits or self._reads or self._hostile)

    def _look(self, received: dict[str, int], given: Counter[str]) -> None:
        now = time.monotonic()
        last, self._reads = self._reads, {}
        first: list[Call] = []
        waiting: dict[str, list[Call]] = {}  # by connection: calls that have waited for a period
        for call in self._calls:
            number = _pending_read(call)
            if not number:
                continue
            before, since = last.get(call, (0, now))
            self._reads[call] = (number, since if number == before else now)
            if number == before == 1:
                first.append(call)
            if received:
                calls = waiting.setdefault(call.connection, [])
                if number == before:
                    calls.append(call)
        self._charge_headers(first)
        self._charge_connections(received, given, waiting)
        self._end_slow(first, now)
        self._hostile = {
            name: since for name, since in self._hostile.items() if now - since < _HOSTILE_SECONDS
        }

    def _charge_headers(self, waiting: list[Call]) -> None:
        last, self._headers = self._headers, {}
        for call in waiting:
            charge = last.pop(call, None)
            if charge is not None:
                self._headers[call] = charge
        for charge in last.values():
            charge.resize(0)
        for call in waiting:
            if call not in self._headers:
                self._headers[call] = charge = Charge(self._intake.budget, call.connection)
                _charge(charge, _CALL_BYTES + call.header_bytes(), [call])

    def _charge_connections(
        self, received: dict[str, int], given: Counter[str], waiting: dict[str, list[Call]]
    ) -> None:
        last, self._connections = self._connections, {}
        # A call may begin on a connection that is too new for the kernel's counts.
        callers = self._callers | self._last_callers
        self._last_callers, self._callers = self._callers, set()
        for name, count in received.items():
            connection = last.pop(name, None) or _Connection(Charge(self._intake.budget, name))
            self._connections[name] = connection
            connection.has_called = connection.has_called or name in callers
            if count > _BYTES_BEFORE_CALLS and not connection.has_called:
                self.end(name)
            connection.grow(count, given[name], is_waited_for=name in waiting)
            _charge(connection.charge, connection.charged, waiting.get(name, []))
        for connection in last.values():
            connection.charge.resize(0)

    def _end_slow(self, waiting: list[Call], now: float) -> None:
        """Ends calls whose first message arrives too slowly, which their reader cannot see."""
        limit = self._intake.limit
        for call in waiting:
            connection = self._connections.get(call.connection)
            if connection is None or not connection.charged or call not in self._reads:
                continue
            if now - self._reads[call][1] > seconds_to_arrive(limit):
                call.refuse(grpc.StatusCode.DEADLINE_EXCEEDED, too_slow(limit))


def _pending_read(call: Call) -> int:
    return cast(CoreMessages, call.messages).pending_read


def _charge(charge: Charge, size: int, waiting: list[Call]) -> None:
    """Resizes a charge; ends the waiting calls if the budget has no room."""
    try:
        charge.resize(size)
    except ResourceExhaustedError as error:
        for call in waiting:
            call.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, error)


class _Connection:
    """A connection, and the messages that core holds for it.

    Attributes:
        size: the bytes that core holds.
        charge: the charge for these bytes.
        has_called: whether a call of it has begun.
    """

    def __init__(self, charge: Charge) -> None:
        self.charge = charge
        self.size = 0
        self.has_called = False
        self._received = 0

    @property
    def charged(self) -> int:
        """The bytes to charge; small messages do not count."""
        return self.size if self.size >= BEGINNING else 0

    def grow(self, received: int, given: int, *, is_waited_for: bool) -> None:
        """Updates the size; `received` is the total, `given` is since the last call."""
        grown = received - self._received - given
        self._received = received
        self.size = max(0, self.size + grown) if is_waited_for else 0


def _received_bytes(port: int, hostile: Collection[str]) -> dict[str, int]:
    """The bytes that each connection to a port has received; ends hostile connections.

    Takes some milliseconds for a thousand connections. Returns nothing on other systems than
    Linux, which do not report it.
    """
    counts: dict[str, int] = {}
    if not sys.platform.startswith("linux"):
        return counts
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are numbers, not files
        with suppress(OSError, TypeError, struct.error):  # not TCP, or closed meanwhile
            sock = socket.socket(fileno=int(name))
            try:
                if sock.getsockname()[1:2] != (port,):
                    continue
                peer = sock.getpeername()
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
                connection = _name(*peer[:2])
                if connection in hostile:
                    _end(sock)
            finally:
                sock.detach()  # core closes it
            counts[connection] = _RECEIVED.unpack_from(info, _RECEIVED_AT)[0]
    return counts


def _end(sock: socket.socket) -> None:
    """Ends a connection, and discards what it has received, so that core does not read it."""
    sock.shutdown(socket.SHUT_RDWR)
    nowhere = bytearray(_DISCARDED_BYTES)
    for _ in range(_DISCARDS):
        if not sock.recv_into(nowhere, 0, socket.MSG_TRUNC | socket.MSG_DONTWAIT):
            break


def _name(host: str, port: int) -> str:
    """The peer of a connection in core's format."""
    host = host.removeprefix("::ffff:")
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"
