"""Certificates that are replaced under load: no call may fail, and no stream may break."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grpc import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from faults.metrics import file_descriptors, threads
from faults.servers import Server
from faults.setting import Figure, Setting, holds, none_of
from support.certificates import Authority, channel_credentials

_CHANNELS = 10
_STREAMS = 100
_CALLS_A_SECOND = 100

_IN_FORCE = "new certificates are in force"
_SECONDS_BETWEEN = 1.0
_SLOW_SECONDS = 30.0

# What the last servers may still hold, after any number of rotations.
_MORE_DESCRIPTORS, _MORE_THREADS, _MORE_MEMORY = 3 * _CHANNELS, 5, 64 << 20


@dataclass
class _Callers:
    """Calls at a constant rate, and streams that are used again and again."""

    channels: Sequence[Any]
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    async def call(self, channel: Any) -> None:
        """Calls until it is cancelled."""
        stub: Any = HealthStub(channel)
        while True:
            try:
                await stub.Check(HealthCheckRequest(), timeout=_SLOW_SECONDS)
                self.answered += 1
            except aio.AioRpcError as error:
                self.failed.append(f"{error.code().name}: {error.details()}")
            await asyncio.sleep(_CHANNELS / _CALLS_A_SECOND)

    def open(self) -> list[Any]:
        """Opens the streams."""
        count = _STREAMS // len(self.channels)
        stubs = [ServerReflectionStub(channel) for channel in self.channels]
        return [stub.ServerReflectionInfo() for stub in stubs for _ in range(count)]

    async def use(self, stream: Any) -> None:
        """Sends a message on a stream, and expects an answer."""
        try:
            await stream.write(ServerReflectionRequest(list_services=""))
            if await asyncio.wait_for(stream.read(), _SLOW_SECONDS) is aio.EOF:
                self.broken.append("it ended")
        except (aio.AioRpcError, asyncio.InvalidStateError, TimeoutError) as error:
            self.broken.append(repr(error)[:200])


def rotate_certificates(setting: Setting) -> list[Figure]:
    """Replaces the certificates of each transport again and again under calls and streams."""
    figures = []
    for transport in ("h2corn", "grpcio"):
        folder = setting.folder / f"{transport}-certificates"
        authority = Authority()
        certificate, key = authority.server().write(folder)
        flags = ("--tls-cert", str(certificate), "--tls-key", str(key), "--spare-workers=0")
        with setting.server(f"--transport={transport}", *flags, folder=transport) as server:
            figures += asyncio.run(_rotate(setting, transport, server, authority, folder))
    return figures


async def _rotate(
    setting: Setting, transport: str, server: Server, authority: Authority, folder: Path
) -> list[Figure]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    credentials = channel_credentials(authority)
    callers = _Callers(
        [aio.secure_channel(server.target, credentials, options) for _ in range(_CHANNELS)]
    )
    streams = callers.open()
    calling = [asyncio.create_task(callers.call(channel)) for channel in callers.channels]
    before: list[int] = []
    for number in range(1, setting.scale.rotations + 1):
        authority.server().write(folder)
        await _in_force(server, number)
        await asyncio.gather(*map(callers.use, streams))
        await asyncio.sleep(_SECONDS_BETWEEN)
        before = before or _held(server)
        setting.say(f"{transport}: {number} rotations, {callers.answered:,} calls")
    grown = await _growth(server, before)
    for task in calling:
        task.cancel()
    for stream in streams:
        stream.cancel()
    for channel in callers.channels:
        await channel.close()
    count = setting.scale.rotations
    return [
        none_of(
            f"{transport}: failed calls, {_CALLS_A_SECOND} a second, over {count} rotations",
            callers.failed,
            callers.answered + len(callers.failed),
        ),
        none_of(
            f"{transport}: broken streams over {count} rotations", callers.broken, len(streams)
        ),
        holds(f"{transport}: rotations leave no threads, descriptors or memory", grown),
    ]


async def _in_force(server: Server, count: int) -> None:
    async with asyncio.timeout(_SLOW_SECONDS):
        while server.log.read_text().count(_IN_FORCE) < count:  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.05)


def _held(server: Server) -> list[int]:
    pid = server.process.pid
    memory = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4_096
    return [file_descriptors(pid).total(), threads(pid), memory]


async def _growth(server: Server, before: list[int]) -> list[str]:
    """Waits for servers that still end; returns what has grown by more than it may."""
    limits = (_MORE_DESCRIPTORS, _MORE_THREADS, _MORE_MEMORY)
    names = ("descriptors", "threads", "bytes of memory")
    grown: list[str] = []
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        grown = [
            f"{now - then:,} {name} more"
            for now, then, limit, name in zip(_held(server), before, limits, names, strict=True)
            if now - then > limit
        ]
        if not grown:
            break
        await asyncio.sleep(0.2)
    return grown
