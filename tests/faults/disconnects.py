"""Thousands of abrupt disconnects: the server must release everything that belongs to them."""

import asyncio
import random
import socket
import struct
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from faults.metrics import begun_calls, file_descriptors, open_calls, threads
from faults.servers import Server, wait_until
from faults.setting import Figure, Setting
from leadline.client import Client
from leadline.v1.training_service_pb2 import GetJobRequest, WatchJobRequest
from support.http2_frames import PREFACE, headers, message, ping, settings
from support.wire import tiny_spec

_AT_ONCE = 50
_RESET = struct.pack("ii", 1, 0)
_WATCH = "/leadline.v1.TrainingService/WatchJob"
_GET = "/leadline.v1.TrainingService/GetJob"


@dataclass(frozen=True)
class _Held:
    """The tasks, threads and descriptors of a server at a moment."""

    tasks: int
    threads: int
    open_calls: int
    file_descriptors: Counter[str]

    def more_than(self, before: "_Held") -> list[str]:
        """Returns what it has in addition to an earlier moment."""
        grown = {
            "tasks": self.tasks - before.tasks,
            "threads": self.threads - before.threads,
            "open calls": self.open_calls - before.open_calls,
            "file descriptors": self.file_descriptors.total() - before.file_descriptors.total(),
        }
        leaks = [f"{more} {name}" for name, more in grown.items() if more > 0]
        if grown["file descriptors"] > 0:
            leaks.append(str(dict(self.file_descriptors - before.file_descriptors)))
        return leaks


def disconnect_abruptly(setting: Setting) -> list[Figure]:
    """Counts the server's resources before and after, while a job trains and is watched."""
    count, chance = setting.scale.disconnects, setting.random()
    with setting.serving() as server, Client(server.target) as client:
        job = client.train(tiny_spec(epochs=10_000, learning_rate=0.001))
        wait_until(lambda: len(server.workers()) > 1, "the job trained, and a spare worker came")
        setting.say("warming up")
        _warm_up(client, job.name)
        asyncio.run(_disconnect(server.target, job.name, chance, max(100, count // 20), setting))
        before = _settled(server, None)
        calls = begun_calls(server.metrics_url)
        how = asyncio.run(_disconnect(server.target, job.name, chance, count, setting))
        after = _settled(server, before)
        calls = begun_calls(server.metrics_url) - calls
        job.cancel()
    return [_figure(before, after, calls, how)]


async def _disconnect(
    target: str, job: str, chance: random.Random, count: int, setting: Setting
) -> Counter[str]:
    how: Counter[str] = Counter()
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(seed: int) -> None:
        async with gate:
            how[await _connect_and_leave(target, job, random.Random(seed))] += 1  # noqa: S311
        if not how.total() % 500:
            setting.say(f"{how.total()} of {count} disconnects")

    await asyncio.gather(*(one(chance.getrandbits(64)) for _ in range(count)))
    return how


async def _connect_and_leave(target: str, job: str, chance: random.Random) -> str:
    """Connects, sends a part of a client's messages, and disconnects; returns how far it went."""
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    how, said, waits = _conversation(job, chance)
    writer.write(said)
    try:
        await writer.drain()
        if waits:
            async with asyncio.timeout(chance.uniform(0, 0.2)):
                while await reader.read(1 << 16):
                    pass
    except (TimeoutError, ConnectionError):
        pass
    if chance.random() < 0.8:
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
    return how


def _conversation(job: str, chance: random.Random) -> tuple[str, bytes, bool]:
    """Returns how far a connection goes, what it sends, and whether it waits for some of the
    answer."""
    begin = PREFACE + settings()
    watch = headers(1, _WATCH)
    request = message(1, WatchJobRequest(name=job).SerializeToString())
    get = headers(3, _GET) + message(3, GetJobRequest(name=job).SerializeToString())
    cut = chance.randrange(1, len(request))
    return chance.choice(
        [
            ("said nothing", b"", False),
            (
                "in the preface",
                PREFACE[: chance.randrange(1, len(PREFACE))],
                False,
            ),
            ("in the greeting", begin, True),
            ("no HTTP/2", chance.randbytes(100), True),
            ("in a request", begin + watch + request[:cut], True),
            ("before a request", begin + watch, True),
            ("in a stream", begin + watch + request, True),
            ("in a stream", begin + watch + request + get + ping(), True),
            ("at once after a request", begin + watch + request, False),
        ]
    )


def _warm_up(client: Client, job: str) -> None:
    """Makes the server open all its connections to the database."""
    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(client.get_job, [job] * 500):
            pass


def _settled(server: Server, before: _Held | None) -> _Held:
    """Returns the server's resources after all have disconnected."""
    # The stream of the only remaining client.
    wait_until(lambda: open_calls(server.metrics_url) <= 1, "all calls had ended", seconds=60)
    held = _held(server)
    for _ in range(60):
        time.sleep(0.5)
        earlier, held = held, _held(server)
        if not held.more_than(before or earlier):
            break
    return held


def _held(server: Server) -> _Held:
    pid = server.process.pid
    return _Held(
        tasks=server.count_tasks(),
        threads=threads(pid),
        open_calls=open_calls(server.metrics_url),
        file_descriptors=file_descriptors(pid),
    )


def _figure(before: _Held, after: _Held, calls: int, how: Counter[str]) -> Figure:
    grown = after.more_than(before)
    return Figure(
        bar=f"{how.total():,} abrupt disconnects ({calls:,} of them with a call begun): "
        "leaked tasks, threads, file descriptors",
        required="0",
        measured=", ".join(grown)
        or f"0 (of {before.tasks} tasks, {before.threads} threads, "
        f"{before.file_descriptors.total()} file descriptors)",
        ok=not grown,
    )
