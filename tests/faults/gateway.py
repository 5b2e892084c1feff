"""A gateway that shares few connections between many callers: cancelled calls must harm no
others."""

import asyncio
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from faults.servers import wait_until
from faults.setting import SEED, Figure, Setting, none_of, skipped

_CALLERS = 200
_CANCELLING = 20

# The mean pause of each caller; those who cancel have shorter ones.
_SECONDS_BETWEEN_CALLS = 1.0
_SECONDS_BETWEEN_CANCELLATIONS = 0.1

# Every second innocent caller also has a stream open all the time.
_CALLERS_PER_STREAM = 2

_PACKAGE = "haproxy"

# HTTP/2 on both sides; every connection to the server carries the calls of all callers.
_CONFIGURATION = """
global
    maxconn 4096
    nbthread 1
    stats socket {folder}/stats level admin
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    http-reuse always
frontend callers
    bind 127.0.0.1:{port} proto h2
    default_backend leadline
backend leadline
    server leadline {target} proto h2
"""


@dataclass
class _Callers:
    """The results of all calls through the gateway."""

    answered: int = 0
    cancelled: int = 0
    failed: list[str] = field(default_factory=list)

    async def run(self, target: str, seconds: float) -> None:
        """Calls for a time, while a tenth of the callers cancel their calls."""
        chance = random.Random(SEED)  # noqa: S311 - chance, not secrets
        async with asyncio.TaskGroup() as group:
            for number in range(_CALLERS):
                group.create_task(self._call(target, seconds, number, chance))

    async def _call(self, target: str, seconds: float, number: int, chance: random.Random) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with aio.insecure_channel(target, options) as channel:
            stub: Any = HealthStub(channel)
            end = asyncio.get_running_loop().time() + seconds
            if number < _CANCELLING:
                await self._cancel(stub, end, chance)
                return
            stream = None
            if number % _CALLERS_PER_STREAM == 0:
                stream = stub.Watch(HealthCheckRequest())
                await self._expect(stream.read())
            while asyncio.get_running_loop().time() < end:
                await asyncio.sleep(chance.uniform(0, 2 * _SECONDS_BETWEEN_CALLS))
                await self._expect(stub.Check(HealthCheckRequest(), timeout=30))
            if stream is not None:
                if stream.done():
                    self.failed.append(f"Watch: {await stream.code()}")
                stream.cancel()

    async def _cancel(self, stub: Any, end: float, chance: random.Random) -> None:
        while asyncio.get_running_loop().time() < end:
            call = stub.Watch(HealthCheckRequest())
            await asyncio.sleep(chance.uniform(0, 2 * _SECONDS_BETWEEN_CANCELLATIONS))
            call.cancel()
            self.cancelled += 1

    async def _expect(self, call: Any) -> None:
        try:
            await call
            self.answered += 1
        except grpc.RpcError as error:
            self.failed.append(str(error)[:200])


def pool_callers(setting: Setting) -> list[Figure]:
    """Runs callers through HAProxy in front of each transport."""
    bar = (
        f"grpcio behind HAProxy, {_CALLERS} callers of whom a tenth cancel: "
        "failed calls of the others"
    )
    if shutil.which(_PACKAGE) is None:
        return [skipped(bar, f"there is no {_PACKAGE}: apt-get install {_PACKAGE}")]
    figures = []
    for transport in ("h2corn", "grpcio"):
        callers = _Callers()
        flags = (f"--transport={transport}", "--spare-workers=0")
        with (
            setting.server(*flags, folder=transport) as server,
            _gateway(server.target, server.folder) as target,
        ):
            asyncio.run(callers.run(target, setting.scale.gateway_seconds))
            connections = _connections(server.folder)
        setting.say(
            f"{transport}: {len(callers.failed)} of {callers.answered:,} calls failed beside "
            f"{callers.cancelled:,} cancelled, {connections} connections to the server"
        )
        if transport == "grpcio":  # h2corn closes such connections: docs/transports.md
            figures.append(none_of(bar, callers.failed, callers.answered))
    return figures


@contextmanager
def _gateway(server: str, folder: Path) -> Iterator[str]:
    """Runs HAProxy in front of a server; yields the target for callers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = folder / "haproxy.cfg"
    file.write_text(_CONFIGURATION.format(folder=folder, port=port, target=server))
    process = subprocess.Popen([_PACKAGE, "-db", "-q", "-f", file])
    try:
        wait_until(lambda: _accepts(port), "HAProxy accepted connections")
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _connections(folder: Path) -> int:
    """Returns how many connections HAProxy has opened to the server."""
    with socket.socket(socket.AF_UNIX) as stats:
        stats.connect(str(folder / "stats"))
        stats.sendall(b"show stat\n")
        with stats.makefile() as answer:
            names, *rows = (line.split(",") for line in answer.read().splitlines() if line)
    (row,) = (row for row in rows if row[:2] == ["leadline", "leadline"])
    return int(row[names.index("connect")])
