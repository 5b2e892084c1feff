"""Attacks on scarce resources: descriptors, and memory for training."""

import asyncio
import contextlib
import socket
import time
from contextlib import ExitStack

import psutil

from hostile.attack import Scene, attack
from hostile.calls import send
from leadline.client import Client
from support.bare_http2 import Connection
from support.wire import tiny_spec

_DESCRIPTORS = 700
_GIBIBYTE = 1 << 30


@attack(
    source="exhaustion of file descriptors (CWE-769)",
    wrapper=("prlimit", f"--nofile={_DESCRIPTORS}:{_DESCRIPTORS}"),
    is_of_transport=True,
)
async def many_connections(scene: Scene) -> None:
    """Opens more connections than the server has descriptors, holds them, closes them, and repeats.

    Existing connections must not be affected, and the server must accept new ones after the flood.
    """
    address = ("127.0.0.1", scene.site.port)
    await scene.begin()
    while True:
        with ExitStack() as stack:
            for _ in range(2 * _DESCRIPTORS):
                connection = stack.enter_context(socket.socket())
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    connection.connect(address)
                await asyncio.sleep(0)
            await asyncio.sleep(1)
        began = time.monotonic()
        try:
            async with asyncio.timeout(10), Connection(scene.site.port) as honest:
                await send(scene, honest, "/grpc.health.v1.Health/Check", b"")
        except OSError:  # the server is gone, or accepts none
            scene.tally["not accepted"] += 1
            if time.monotonic() - began > 9:
                scene.wrong.append("no connection was accepted after the flood")


@attack(
    source="allocation of memory without a limit (CWE-770)",
    flags=(f"--worker-memory-bytes={2 * _GIBIBYTE}",),
)
async def largest_spec(scene: Scene) -> None:
    """Trains the largest network that a spec allows, in the largest batches.

    Its worker must stay within its memory, and its job fail with a reason if that is too little.
    """
    dataset = scene.scaled("tiny", "synthetic")
    spec = tiny_spec(dataset=dataset, blocks=64, block_convolutions=2, batch_size=65_536)
    with Client(scene.site.target) as client:
        job = client.train(spec)
        job.detach()
        await scene.begin()
        server = psutil.Process(scene.site.pid)
        most = 0
        while True:
            with contextlib.suppress(psutil.Error):
                used = [child.memory_info().rss for child in server.children(recursive=True)]
                most = max(most, *used, 0)
            scene.tally["MiB of a worker"] = most >> 20
            if most > 2.2 * _GIBIBYTE:
                scene.wrong[:] = [f"a worker had {most >> 20} MiB"]
            await asyncio.sleep(0.05)
