"""A server that a test can kill at any moment and restart on the same port."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from faults.counted_server import REPORT_VARIABLE
from support.servers import Launcher, ServerNeverCameError

_TESTS = Path(__file__).parents[1]

# A worker with at most this CPU use during a check has loaded everything.
_IDLE_SECONDS = 0.02

_WORKER_MODULE = "leadline.server.workers.process"


class Server:
    """A server process with its own folder, which keeps its port across restarts.

    Attributes:
        target: the address for clients, the same after each restart.
        metrics_url: the URL of its metrics, different after each restart.
        survivors: workers that outlived a killed server.
    """

    def __init__(
        self, folder: Path, dataset: Path, *flags: str, prefix: Sequence[str] = ()
    ) -> None:
        """Prepares a server; `start`, or entering the context, starts it.

        Args:
            folder: the folder for its data and its log.
            dataset: the source of its dataset "tiny".
            flags: its options.
            prefix: a command in front of the server's command.
        """
        self.folder = folder
        self._report = folder / "tasks"
        self._launcher = Launcher(
            folder,
            *("--dataset", f"tiny={dataset}"),
            *flags,
            module="faults.counted_server",
            environment={"PYTHONPATH": str(_TESTS), REPORT_VARIABLE: str(self._report)},
            wrapper=prefix,
        )
        self.data_dir, self.log = self._launcher.data_dir, self._launcher.log
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.metrics_url = ""
        self.survivors: list[int] = []

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The server's process."""
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Starts the server and waits until it serves."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Starts the server without waiting for it."""
        self._process = self._launcher.spawn("--port", str(self._port))

    def wait_ready(self) -> None:
        """Waits until the server serves.

        Raises:
            ServerNeverCameError: the server exited, or took too long.
        """
        reached = self._launcher.wait_ready(self.process)
        self._port = int(reached.target.rpartition(":")[2])
        self.metrics_url = reached.metrics_url

    def kill(self) -> None:
        """Kills the server with SIGKILL, and waits until its workers are gone too."""
        if self._process is None:
            return
        workers = self.workers()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        _, alive = psutil.wait_procs(workers, timeout=20)
        for worker in alive:
            worker.kill()
        self.survivors += [worker.pid for worker in alive]
        self._process = None

    def stop(self) -> int:
        """Stops the server, and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def workers(self) -> list[psutil.Process]:
        """Returns its training processes, including spare ones, the oldest first."""
        try:
            children = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []
        return sorted(filter(_is_worker, children), key=psutil.Process.create_time)

    def count_tasks(self) -> int:
        """Returns its number of asyncio tasks."""
        self._report.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        wait_until(self._report.exists, "the server had counted its tasks")
        return len(self._report.read_text().splitlines())


def _is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return _WORKER_MODULE in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    return False


def refused_start(server: Server, words: str) -> list[str]:
    """Returns what is wrong with a refused start: the server must exit with this message."""
    server.log.write_bytes(b"")
    try:
        with server:
            return ["the server started"]
    except ServerNeverCameError:
        said = server.log.read_text()
    errors = [] if words in said else [f"the server did not say {words!r} but {said!r}"]
    return [*errors, "a traceback"] if "Traceback" in said else errors


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = 60) -> None:
    """Waits for a condition.

    Raises:
        TimeoutError: the condition was false for too long.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{seconds:.0f} s passed before {what}")
        time.sleep(0.01)


def wait_for_spares(server: Server, count: int) -> None:
    """Waits until this many workers exist, all spare and idle."""

    def are_at_rest() -> bool:
        workers = server.workers()
        if len(workers) != count:
            return False
        before = [_cpu_seconds(worker) for worker in workers]
        time.sleep(0.5)
        return all(
            seconds > 1 and _cpu_seconds(worker) - seconds < _IDLE_SECONDS
            for worker, seconds in zip(workers, before, strict=True)
        )

    wait_until(are_at_rest, "the spare workers were ready")


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
