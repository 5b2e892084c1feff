"""Runs training processes on this machine."""

import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog

from leadline.server.memory import in_bytes, oom_kills, process_memory
from leadline.server.workers.child_process import ChildProcess
from leadline.server.workers.memory import describe_exhaustion, mentions_exhaustion
from leadline.server.workers.messages import Assignment, Message, Ready, decode

_LOG = structlog.get_logger(__name__)

# The time limit to load torch, even from a slow disk.
_START_SECONDS = 120.0

# The longest line of a worker, in bytes: a thousand class names fit.
_LINE_LIMIT = 1 << 20

# By default OpenMP's threads spin at a barrier. On a busy machine they would take
# the core from the thread that they wait for, and slow down training many times.
_WORKER_ENVIRONMENT = {"OMP_WAIT_POLICY": "passive"}

# The log format of `leadline.server.workers.worker`: date, time, level, message.
_SEVERE_LINE = re.compile(r"\d{4}-\d\d-\d\d \S+ (WARNING|ERROR|CRITICAL) ")

# How many last lines of a worker's log the failure of its job quotes.
_LOG_TAIL_LINES = 20

# The interval at which a worker's memory is read.
_MEMORY_SECONDS = 0.25


@dataclass(frozen=True, kw_only=True)
class WorkerEnd:
    """How a worker ended before its job was done.

    Attributes:
        text: a description for people.
        reason: the reason of the job's failure, if the job fails.
        is_final: whether another worker would end in the same way.
    """

    text: str
    reason: str = "WORKER_LOST"
    is_final: bool = False

    def __str__(self) -> str:
        return self.text


class WorkerError(Exception):
    """The worker's process could not be started, or its pipes are closed."""


class WorkerSilentError(WorkerError):
    """The worker's process runs, but has sent nothing for too long."""


class LocalWorker:
    """One training process, from its start to its end."""

    def __init__(self, process: ChildProcess) -> None:
        self._process = process
        self._log_tail: deque[str] = deque(maxlen=_LOG_TAIL_LINES)
        self._log_task = asyncio.create_task(self._forward_log())
        self._memory_task: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._memory_limit = 0
        self._held = 0
        self._oom_kills = 0

    @classmethod
    async def spawn(cls, *, niceness: int) -> "LocalWorker":
        """Starts a process that loads torch and then waits for its assignment."""
        module = "leadline.server.workers.process"
        return cls(
            await ChildProcess.spawn(
                [sys.executable, "-m", module, f"--niceness={niceness}"],
                environment={**_WORKER_ENVIRONMENT, **os.environ},
                line_limit=_LINE_LIMIT,
            )
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.returncode is None

    @property
    def is_closed(self) -> bool:
        """Whether `kill` has finished."""
        return self._ending is not None and self._ending.done()

    @property
    def log_tail(self) -> str:
        """The last lines that the process logged."""
        return "\n".join(self._log_tail)

    async def wait_ready(self) -> None:
        """Waits until the process accepts an assignment.

        Raises:
            WorkerError: the process has ended, or took too long.
        """
        message = await self._read_within(_START_SECONDS)
        if not isinstance(message, Ready):
            raise WorkerError(f"the worker did not become ready: {await self.describe_end()}")

    async def run(self, assignment: Assignment, *, silence_limit: float) -> AsyncIterator[Message]:
        """Sends the assignment and yields the worker's messages until it ends.

        Kills a worker that exceeds its memory limit.

        Raises:
            WorkerError: the process ended before it received the assignment.
            WorkerSilentError: it sent nothing for `silence_limit` seconds.
        """
        self._memory_limit = assignment.memory_bytes
        self._oom_kills = oom_kills()
        self._memory_task = asyncio.create_task(self._watch_memory())
        try:
            self._process.stdin.write(assignment.to_line())
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise WorkerError(f"the worker is gone: {await self.describe_end()}") from error
        while (message := await self._read_within(silence_limit)) is not None:
            yield message

    async def kill(self) -> None:
        """Kills the process and waits for its end; if cancelled, it still ends."""
        if self._ending is None:
            self._process.kill()
            self._ending = asyncio.create_task(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        if self._memory_task:
            self._memory_task.cancel()
        await self._process.wait()
        await asyncio.wait({self._log_task})
        self._process.close()

    async def _read_within(self, seconds: float) -> Message | None:
        try:
            async with asyncio.timeout(seconds):
                return await self._read()
        except TimeoutError:
            raise WorkerSilentError(f"was silent for {seconds:.0f} s and was ended") from None

    async def _read(self) -> Message | None:
        line = await self._process.stdout.readline()
        # A killed process may leave an incomplete line.
        return decode(line) if line.endswith(b"\n") else None

    async def describe_end(self) -> WorkerEnd:
        """How the process ended, with the tail of its log."""
        status = await self._process.wait()
        await asyncio.wait({self._log_task})  # several may wait: none may cancel it
        ended = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
        ended += f"; its log ends: {self.log_tail or '(empty)'}"
        limit = self._memory_limit
        if limit and self._held > limit:
            text = describe_exhaustion(self._held, limit, "the server ended it")
        elif status not in (0, -signal.SIGKILL) and mentions_exhaustion(self.log_tail):
            text = describe_exhaustion(self._held, limit, ended)
        elif status == -signal.SIGKILL and oom_kills() > self._oom_kills:
            # Another program may have used the memory, so the job is tried again.
            text = (
                "was killed by the kernel, because the memory of the machine or of its control "
                f"group ran out (oom_kill); it held {in_bytes(self._held)}: use a smaller "
                "batch_size or fewer blocks, or free some memory"
            )
            return WorkerEnd(text=text, reason="OUT_OF_MEMORY")
        else:
            return WorkerEnd(text=ended)
        return WorkerEnd(text=text, reason="OUT_OF_MEMORY", is_final=True)

    async def _watch_memory(self) -> None:
        """Records the peak memory of the process, and kills it above its limit."""
        with contextlib.suppress(OSError):  # the process has ended
            while self.is_alive:
                held = process_memory(self.pid)
                # A zombie has no memory. Mapped files do not count: the kernel can drop them.
                resident = held.get("RssAnon", 0) + held.get("RssShmem", 0)
                self._held = max(self._held, resident)
                if 0 < self._memory_limit < resident:
                    self._process.kill()
                await asyncio.sleep(_MEMORY_SECONDS)

    async def _forward_log(self) -> None:
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:  # longer than the limit: asyncio has dropped it
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            self._log_tail.append(text)
            _LOG.log(_level_of(text), "worker log", pid=self.pid, line=text)


def _level_of(line: str) -> int:
    """The level of a line of a worker's log; INFO for lines that libraries print."""
    match = _SEVERE_LINE.match(line)
    return logging.getLevelNamesMapping()[match[1]] if match else logging.INFO


class WorkerPool:
    """Starts workers, and keeps spares ready so that jobs do not wait for torch."""

    def __init__(self, *, spares: int, niceness: int) -> None:
        self._spare_count = spares
        self._niceness = niceness
        self._spares: deque[asyncio.Task[LocalWorker]] = deque()
        self._spawned: set[asyncio.Task[LocalWorker]] = set()
        self._closed = False

    def fill(self) -> None:
        """Starts the missing spare workers."""
        while len(self._spares) < self._spare_count and not self._closed:
            self._spares.append(asyncio.create_task(self._spawn()))

    async def take(self) -> LocalWorker:
        """Returns a worker that is ready for an assignment: a spare, or a new one.

        Raises:
            WorkerError, OSError: no worker could be started.
        """
        while self._spares:
            spare = self._spares.popleft()
            with contextlib.suppress(WorkerError, OSError):
                worker = await spare
                if worker.is_alive:
                    return worker
                await worker.kill()
        return await self._spawn()

    async def close(self) -> None:
        """Kills all workers, also those whose start or end was abandoned."""
        self._closed = True
        spares = list(self._spares)
        self._spares.clear()
        for spare in spares:
            spare.cancel()
        await asyncio.gather(*spares, return_exceptions=True)
        await asyncio.gather(*map(_kill_spawned, self._spawned))

    async def _spawn(self) -> LocalWorker:
        self._spawned = {task for task in self._spawned if not _has_ended(task)}
        spawned = asyncio.create_task(LocalWorker.spawn(niceness=self._niceness))
        self._spawned.add(spawned)
        try:
            # Shielded, because nobody would own a process whose start is cancelled.
            worker = await asyncio.shield(spawned)
            await worker.wait_ready()
        except BaseException:
            await asyncio.shield(_kill_spawned(spawned))
            raise
        return worker


def _has_ended(spawned: "asyncio.Task[LocalWorker]") -> bool:
    """Whether a worker could not be started, or has ended."""
    return spawned.done() and (spawned.exception() is not None or spawned.result().is_closed)


async def _kill_spawned(spawned: "asyncio.Task[LocalWorker]") -> None:
    with contextlib.suppress(OSError):  # it could not be started
        await (await spawned).kill()
