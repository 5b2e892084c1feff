"""Servers with a history: many finished jobs, written without training them."""

import json
import sys
import time
from pathlib import Path

import psutil

from harness.processes import ServerProcess
from leadline.server.jobs.states import JobState

sys.path.append(str(Path(__file__).parents[2] / "tests"))  # for the helper that fills stores

from support.stores import fill_database

# The number of paused jobs, for watchers and for writes; none starts.
WAITING = 100

# The number of jobs in the sweep to read and in the sweep to delete.
SWEEP_JOBS = 1_000

_HELD = f"--min-free-disk-bytes={1 << 60}"


def write_history(folder: Path, jobs: int, *, epochs: int, sweep_jobs: int) -> None:
    """Fills the data directory of a server: finished jobs `f`, paused jobs `p`, two sweeps."""
    database = folder / "leadline.db"
    for sweep_id in ("s", "d") if sweep_jobs else ():
        fill_database(database, sweep_jobs, epochs=2, sweep_id=sweep_id, prefix=sweep_id)
    fill_database(database, jobs, epochs=epochs)
    fill_database(database, WAITING, state=JobState.PAUSED, prefix="p")
    for number in range(jobs):
        _write_model(folder, f"f{number}", files=0)
    for number in range(sweep_jobs):
        _write_model(folder, f"d{number}", files=8)


def _write_model(folder: Path, job_id: str, *, files: int) -> None:
    attempt = folder / "models" / job_id / "attempt-001"
    attempt.mkdir(parents=True)
    for number in range(files):
        (attempt / f"epoch-{number:05d}.json").write_text("{}")


class HistoryServer:
    """`leadline serve` on a data directory; it starts no job.

    Attributes:
        target: host and port of gRPC.
        metrics_url: of its metrics.
        start_seconds: from its command to its ready file.
    """

    def __init__(self, folder: Path) -> None:
        """Prepares a server; `start` starts it."""
        self._folder = folder
        self.target, self.metrics_url, self.start_seconds = "", "", 0.0

    def start(self, *, holds_jobs: bool = True) -> None:
        """Starts the server, and waits until it serves."""
        ready = self._folder / "ready.json"
        ready.unlink(missing_ok=True)
        flags = ["--metrics-port=0", "--port=0", "--spare-workers=0", "--max-queued-jobs=100000"]
        if holds_jobs:
            flags.append(_HELD)
        began = time.perf_counter()
        self._process = ServerProcess(
            [
                *(sys.executable, "-m", "leadline.server.main", *flags),
                *(f"--data-dir={self._folder / 'data'}", f"--ready-file={ready}"),
            ],
            log=self._folder / "log",
            core=None,
        )
        self._process.wait_until(ready.exists, poll_seconds=0.005)
        self.start_seconds = time.perf_counter() - began
        reached = json.loads(ready.read_text())
        self.target, self.metrics_url = reached["target"], reached["metrics_url"]

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of the server's process so far, in seconds."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        """Stops the server."""
        self._process.stop()
