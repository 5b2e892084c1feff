"""A worker that counts as lost but still trains, beside the current worker of its job."""

import contextlib
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from leadline.server.errors import FailedPreconditionError
from leadline.server.jobs.job import EpochCompleted, Failure, Job, Paused, Started
from leadline.server.jobs.states import JobState
from leadline.server.scheduling.assignment import AssignmentMaker
from leadline.server.scheduling.capacity import Capacity, Device
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.store import Store
from leadline.server.workers.messages import Assignment, DiskFault, Done, Message, decode

_PATIENCE_SECONDS = 120


class Undead:
    """A training process of an older attempt that no server has killed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "leadline.server.workers.process", "--niceness=5"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._messages: queue.Queue[Message | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def haunt(self, assignment: Assignment, store: Store, pause: float) -> list[str]:
        """Trains an epoch, stops for some seconds, and trains another.

        Ends early if the attempt's folder already has an epoch that it trains again.

        Returns:
            Its reports that the store accepted.
        """
        stdin = _pipe(self._process.stdin)
        stdin.write(assignment.to_line())
        stdin.flush()
        accepted = self._report_epoch(assignment, store)
        self._process.send_signal(signal.SIGSTOP)
        threading.Event().wait(pause)
        self._process.send_signal(signal.SIGCONT)
        return accepted + self._report_epoch(assignment, store)

    def end(self) -> None:
        """Kills it."""
        self._process.kill()
        self._process.wait()
        self._reader.join(30)
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                _pipe(pipe).close()

    def _report_epoch(self, assignment: Assignment, store: Store) -> list[str]:
        """Records its messages in the store like a server, until an epoch or its end."""
        accepted = []
        while message := self._messages.get(timeout=_PATIENCE_SECONDS):
            if _is_accepted(store, assignment, message):
                accepted.append(f"attempt {assignment.attempt}'s {message}")
            if isinstance(message, EpochCompleted | Done | DiskFault | Failure):
                break
        return accepted

    def _read(self) -> None:
        for line in _pipe(self._process.stdout):
            if line.endswith(b"\n"):
                self._messages.put(decode(line))
        self._messages.put(None)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RuntimeError("the process has no such pipe")
    return pipe


def _is_accepted(store: Store, assignment: Assignment, message: Message) -> bool:
    job_id, attempt = assignment.job_id, assignment.attempt
    try:
        match message:
            case Started():
                store.attempts.record_started(job_id, attempt, message)
            case EpochCompleted():
                store.attempts.record_epoch(job_id, attempt, message)
            case DiskFault():
                pause = Paused(reason="STORAGE", message=message.message)
                store.attempts.pause(job_id, attempt, pause)
            case Failure():
                store.attempts.finish(job_id, attempt, JobState.FAILED, failure=message)
            case Done():
                store.attempts.finish(job_id, attempt, JobState.SUCCEEDED)
            case _:
                return False  # changes nothing that is kept
    except FailedPreconditionError:
        return False
    return True


def assignment_of(store: Store, job: Job, data_dir: Path) -> Assignment:
    """Returns the assignment of the job's worker, with the epochs completed since."""
    maker = AssignmentMaker(
        artifacts=Artifacts(data_dir / "models"),
        dataset_sources={job.spec.dataset: ""},
        dataset_cache=data_dir / "datasets",
        fingerprints={},
        cpu_threads=1,
        capacity=Capacity([Device(name="cpu", jobs=1, sweep_jobs=1)]),
        max_image_pixels=1 << 24,
        worker_memory=0,
    )
    return maker.make(job, store.models.get(job.job_id), "cpu")
