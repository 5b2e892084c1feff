"""Starts the serving processes, watches them, and replaces those that end or do not answer."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from leadline.server.access.control import AccessControl
from leadline.server.errors import ServiceError, UnavailableError
from leadline.server.processes.protocol import STATUS_PATH, Greeting, SharedRevision
from leadline.server.settings import Settings
from leadline.server.telemetry.health import LOOK_SECONDS, Probe
from leadline.server.telemetry.processes import SummedRegistry
from leadline.server.transport.calls import Calls
from leadline.server.transport.links import Link
from leadline.server.transport.sockets import most_linked_calls

_LOG = structlog.get_logger(__name__)

_START_SECONDS = 120.0

# A process that ends sooner than this after its start ends for a cause that may last.
_STEADY_SECONDS = 10.0
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 30.0

# Looks that a process may leave unanswered: as many as predictions may take.
_PATIENCE = 15

# How long a scrape waits for a process, and another call.
_SCRAPE_SECONDS = 5.0
_ASK_SECONDS = 10.0

# Of the grace period, after the calls of this process have ended; and the least time.
_STOP_SHARE, _STOP_SECONDS = 0.25, 1.0


class ProcessError(Exception):
    """A serving process could not be started."""


class ServingProcesses:
    """The serving processes beside this one; there may be none."""

    def __init__(
        self,
        settings: Settings,
        revision: SharedRevision | None,
        registry: CollectorRegistry,
        *,
        access: AccessControl,
        on_restart: Callable[[], None],
    ) -> None:
        """Makes the processes, which `start` starts.

        Args:
            settings: the server's options.
            revision: the revision of the store; None if there are no other processes.
            registry: the metrics of this process.
            access: whether callers need an identity, when a process starts.
            on_restart: is called when a process is started again.
        """
        self._stop_seconds = max(_STOP_SHARE * settings.shutdown_grace_seconds, _STOP_SECONDS)
        self._summed = SummedRegistry(registry)
        self._slots: list[_Slot] = []
        if revision is not None:
            self._slots = [
                _Slot(
                    number, settings, revision, self._summed, access=access, on_restart=on_restart
                )
                for number in range(1, settings.serving_processes)
            ]
        self.registry = self._summed if self._slots else registry

    @property
    def probes(self) -> list[Probe]:
        """A probe for each process, which also replaces one whose predictions do not answer."""
        return [
            Probe(part=slot.part, check=slot.check, patience=2 * _PATIENCE) for slot in self._slots
        ]

    async def start(self, port: int, calls: Calls) -> None:
        """Starts the processes, and waits until each serves.

        Args:
            port: the port that all processes serve.
            calls: answers the calls that they forward.

        Raises:
            ProcessError: one of them ended.
        """
        starts = (slot.start(port, calls) for slot in self._slots)
        for error in await asyncio.gather(*starts, return_exceptions=True):
            if error is not None:
                raise error

    async def refresh(self) -> None:
        """Reads the metrics of all processes; those of one that does not answer stay."""
        await asyncio.gather(*(slot.refresh() for slot in self._slots))

    async def ask(self, path: str, request: bytes) -> list[bytes]:
        """The responses of a method in all processes that give one."""
        responses = await asyncio.gather(*(slot.ask(path, request) for slot in self._slots))
        return [response for response in responses if response is not None]

    def drain(self) -> None:
        """Sends SIGTERM to all processes, and restarts none."""
        for slot in self._slots:
            slot.drain()

    async def stop(self) -> None:
        """Waits until all processes have ended; kills those that take too long."""
        await asyncio.gather(*(slot.stop(self._stop_seconds) for slot in self._slots))


class _Slot:
    """The place of one process, which another takes when it ends."""

    def __init__(
        self,
        number: int,
        settings: Settings,
        revision: SharedRevision,
        metrics: SummedRegistry,
        *,
        access: AccessControl,
        on_restart: Callable[[], None],
    ) -> None:
        self.part = f"process_{number}"
        self._number = number
        self._settings = settings
        self._revision = revision
        self._metrics = metrics
        self._access = access
        self._on_restart = on_restart
        self._process: subprocess.Popen[bytes] | None = None
        self._link: Link | None = None
        self._asking = asyncio.Lock()
        self._ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    async def start(self, port: int, calls: Calls) -> None:
        self._settings = self._settings.model_copy(update={"port": port})
        try:
            link = self._spawn(calls)
        except OSError as error:
            raise ProcessError(f"no serving process can be started: {error.strerror}") from error
        await self._wait_ready(link)
        if self._ready.is_set():
            self._keeping = asyncio.create_task(self._keep(link, calls), name=self.part)
        else:
            status = await self._reap(link)
            raise ProcessError(
                f"serving process {self._number} ended with status {status} before it served; "
                "the lines above say why"
            )

    async def check(self) -> None:
        await self._ready.wait()
        asking = asyncio.create_task(self._status())
        try:
            for _ in range(_PATIENCE):
                done, _ = await asyncio.wait({asking}, timeout=LOOK_SECONDS)
                if done:
                    break
            if not asking.done() or "predictions" in asking.result()["failing"]:
                self.kill()
                raise RuntimeError("its predictions do not answer, so it is replaced")
        finally:
            asking.cancel()

    async def refresh(self) -> None:
        with contextlib.suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(_SCRAPE_SECONDS):
                await self._status()

    async def ask(self, path: str, request: bytes) -> bytes | None:
        with contextlib.suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(_ASK_SECONDS):
                if self._link is not None and self._ready.is_set():
                    return await self._link.ask(path, request)
        return None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def drain(self) -> None:
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()

    async def stop(self, seconds: float) -> None:
        if self._keeping is None:
            if self._link is not None:
                await self._reap(self._link)
            return
        await asyncio.wait({self._keeping}, timeout=seconds)
        if not self._keeping.done():
            _LOG.warning("a serving process did not end in time", process=self._number)
            self.kill()
        await self._keeping

    async def _keep(self, link: Link | None, calls: Calls) -> None:
        """Restarts the process whenever it has ended, until the stop."""
        delay, began = 0.0, time.monotonic()
        while True:
            status = None
            if link is not None:
                await link.closed.wait()
                status = await self._reap(link)
            if self._stopping.is_set():
                return
            steady = time.monotonic() - began > _STEADY_SECONDS
            delay = 0.0 if steady else min(max(_FIRST_DELAY, 2 * delay), _LONGEST_DELAY)
            _LOG.error(
                "a serving process ended", process=self._number, status=status, restart_in=delay
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
                    return
            self._on_restart()
            began = time.monotonic()
            try:
                link = self._spawn(calls)
            except OSError as error:  # the machine has no memory, say
                _LOG.error("no serving process can be started", error=error.strerror)
                link = None
            else:
                await self._wait_ready(link)

    def _spawn(self, calls: Calls) -> Link:
        """Starts a process. In the main thread: the kernel kills it when that thread ends."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                greeting = Greeting(self._number, self._settings, self._access.is_required)
                greeting.send(ours, self._revision)
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "leadline.server.serving_process"],
                    stdin=theirs.fileno(),
                    start_new_session=True,  # Ctrl-C at the terminal must reach this process only
                )
        except OSError:
            ours.close()
            raise
        self._link = Link(ours, max_calls=most_linked_calls())
        self._link.open(calls)
        return self._link

    async def _wait_ready(self, link: Link) -> None:
        """Waits until the process serves, or has ended."""
        with contextlib.suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                await self._status()
                self._ready.set()
                _LOG.info("a serving process serves", process=self._number)
        if not self._ready.is_set():
            self.kill()
            await link.closed.wait()

    async def _reap(self, link: Link) -> int:
        """Kills and closes the rest of the process; returns its exit status."""
        self._ready.clear()
        self._link = None
        link.close()
        assert self._process is not None  # noqa: S101 - it was started
        # The other end of the link was its last descriptor.
        self._process.kill()
        status = await asyncio.to_thread(self._process.wait)
        self._metrics.end(self._number)
        return status

    async def _status(self) -> Any:
        async with self._asking:  # otherwise an older answer could replace a newer one
            link = self._link
            if link is None:
                raise UnavailableError("it does not run")
            status = json.loads(await link.ask(STATUS_PATH))
            if link is self._link:  # otherwise it has ended, and its sums are kept
                self._metrics.update(self._number, status["metrics"])
            return status
