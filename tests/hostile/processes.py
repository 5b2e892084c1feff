"""The processes of the attacker and the innocent caller, and the memory of the server's
processes."""

import asyncio
import contextlib
import multiprocessing
import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from hostile.attack import Scene, Site
from hostile.attacks import ATTACKS
from hostile.innocent import Sample, call_steadily

# Real attackers run on other machines, so this process has a lower priority than the server.
_NICENESS = 10

_READY_SECONDS = 120
_WORKER_MODULE = "leadline.server.workers"

AttackReport = tuple[Counter[str], list[str]]


class Process:
    """A process that prepares, waits for the start, and works until it ends or is stopped."""

    def __init__(self, work: Callable[..., None], *arguments: object) -> None:
        """Starts a process that calls `work` with its end of a pipe and the arguments."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    def wait_ready(self) -> None:
        """Waits until it has prepared everything."""
        if not self._pipe.poll(_READY_SECONDS):
            raise TimeoutError("a process did not get ready to attack")
        if (said := self._pipe.recv()) != "ready":
            raise RuntimeError(f"a process ended before it began: {said}")

    def start(self) -> None:
        """Starts its work."""
        self._pipe.send("start")

    def wait(self, seconds: float) -> bool:
        """Waits for its report, and returns whether it arrived."""
        return self._pipe.poll(seconds)

    def stop(self, seconds: float) -> Any:
        """Stops it and returns its report, or None if there is none after `seconds` seconds."""
        report = None
        with contextlib.suppress(BrokenPipeError):  # it has reported and ended
            self._pipe.send("stop")
        with contextlib.suppress(EOFError):
            if self._pipe.poll(seconds):
                report = self._pipe.recv()
        self.kill()
        return report

    def kill(self) -> None:
        """Kills it if it still runs."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def be_innocent(pipe: Connection, site: Site, patience: float) -> None:
    """Calls the server from the start to the stop; reports the samples."""

    async def call() -> list[Sample]:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), stop.set)
        return await call_steadily(site, stop, patience)

    pipe.send("ready")
    pipe.recv()
    pipe.send(asyncio.run(call()))


def attack_server(pipe: Connection, site: Site, name: str) -> None:
    """Attacks the server from the start until the attack ends or is stopped; reports."""
    os.nice(_NICENESS)
    asyncio.run(_attack(pipe, site, name))


async def _attack(pipe: Connection, site: Site, name: str) -> None:
    heard = {"start": asyncio.Event(), "stop": asyncio.Event()}

    async def begin() -> None:
        pipe.send("ready")
        await heard["start"].wait()

    def hear() -> None:
        heard[pipe.recv()].set()

    asyncio.get_running_loop().add_reader(pipe.fileno(), hear)
    scene = Scene(site, begin)
    attacking = asyncio.ensure_future(ATTACKS[name].run(scene))
    stopping = asyncio.create_task(heard["stop"].wait())
    await asyncio.wait([attacking, stopping], return_when=asyncio.FIRST_COMPLETED)
    if attacking.done() and (error := attacking.exception()):
        scene.wrong.append(f"the attack failed: {error!r}")
        traceback.print_exception(error)
    attacking.cancel()
    stopping.cancel()
    await asyncio.wait([attacking])
    pipe.send((scene.tally, scene.wrong))


class Memory:
    """The peak memory of a server and its processes, without training workers.

    It reads the kernel's high-water marks, which miss no peak between two readings.
    """

    def __init__(self, pid: int) -> None:
        self._server = psutil.Process(pid)
        for process in self._processes():
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # resets the mark
        self._before = self._high_water_kib()

    def grown_mib(self) -> float:
        """Returns the growth from the first reading to the peak."""
        return (self._high_water_kib() - self._before) / 1024

    def _processes(self) -> Iterable[psutil.Process]:
        children = self._server.children(recursive=True)
        return [self._server, *(child for child in children if not _trains(child))]

    def _high_water_kib(self) -> int:
        return sum(_high_water_kib(process.pid) for process in self._processes())


def _trains(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(_WORKER_MODULE in word for word in process.cmdline())
    return True  # it has ended


def _high_water_kib(pid: int) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0
