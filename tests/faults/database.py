"""A database that another program has locked, or that is damaged when the server starts."""

import random
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from faults.jobs import comparable, damage, reference, replay, specs
from faults.servers import Server, refused_start, wait_until
from faults.setting import Figure, Setting, holds
from leadline.client import Client, HealthStatus
from leadline.v1.training_service_pb2 import TrainJobRequest
from leadline.v1.training_spec_pb2 import TrainingSpec
from support.wire import connect, reason

# Longer than the five seconds that the server waits for the lock.
_LOCKED_SECONDS = 5.5


def spoil_database(setting: Setting) -> list[Figure]:
    """Locks the database of a server that trains; then damages it while the server is stopped."""
    damages = list(_DAMAGES.items())[: setting.scale.faults]
    with setting.serving() as server:
        wrong_when_locked, job = _lock(server, setting)
        before = replay(server.target, job)
        server.stop()
        wrong = []
        for name, harm in damages:
            setting.say(f"starting on a damaged database: {name}")
            wrong += [f"{name}: {what}" for what in _refusal_and_restoration(server, harm)]
        server.start()
        if replay(server.target, job) != before:
            wrong.append("events were lost although the database was restored")
        wrong += damage(server.data_dir, job)
    return [
        holds(
            "the database locked by another program: submissions get an error, no event is lost, "
            "jobs continue to the same weights",
            wrong_when_locked,
        ),
        holds(
            f"a damaged database ({', '.join(name for name, _ in damages)}): the start is refused "
            "with the reason, and a copy of the database restores everything",
            wrong,
        ),
    ]


def _lock(server: Server, setting: Setting) -> tuple[list[str], str]:
    """Locks the database from another program while a job trains and another is submitted."""
    wrong, spec, request_id = [], specs(setting.scale)[0], str(uuid.uuid4())
    expected = reference(server.target, spec)
    with Client(server.target) as client:
        job = client.train(spec)
        wait_until(lambda: job.refresh().completed_epochs > 0, "an epoch was complete")
        before = {job.name for job in client.jobs()}
        setting.say(f"locking the database for {_LOCKED_SECONDS} s")
        with _locked(server.data_dir / "leadline.db"):
            said = _answer_to_submission(server.target, spec, request_id)
            if said != "STORAGE_LOCKED":
                wrong.append(f"a submission was answered with {said!r}")
            if client.health() is not HealthStatus.SERVING:
                wrong.append("health was not SERVING")
            if not job.refresh().completed_epochs:
                wrong.append("an acknowledged epoch was lost")
        if {job.name for job in client.jobs()} != before:
            wrong.append("the refused submission had made a job")
        client.train(spec, request_id=request_id).cancel()
        if comparable(job.events()) != expected:
            wrong.append("other events or weights")
    return wrong + damage(server.data_dir, job.name), job.name


def _answer_to_submission(target: str, spec: TrainingSpec, request_id: str) -> str:
    """Returns the reason why a server refuses a submission, or "OK"."""
    stubs = connect(target)
    try:
        request = TrainJobRequest(spec=spec, request_id=request_id)
        next(iter(stubs.training.TrainJob(request, timeout=60)))
    except grpc.RpcError as error:
        return reason(error) if error.code() is grpc.StatusCode.UNAVAILABLE else str(error)
    finally:
        stubs.channel.close()
    return "OK"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Locks the database for at least this long."""
    other = sqlite3.connect(path, isolation_level=None, timeout=60)
    other.execute("BEGIN EXCLUSIVE")
    until = time.monotonic() + _LOCKED_SECONDS
    try:
        yield
        threading.Event().wait(max(0.0, until - time.monotonic()))
    finally:
        other.execute("ROLLBACK")
        other.close()


def _cut_in_half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _scribble(path: Path) -> None:
    """Overwrites everything except the first page, which has the names of the tables."""
    data = path.read_bytes()
    page = int.from_bytes(data[16:18], "big")
    noise = random.Random(1).randbytes(len(data) - page)  # noqa: S311
    path.write_bytes(data[:page] + noise)


def _overwrite(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1_000)


_DAMAGES: dict[str, Callable[[Path], None]] = {
    "its pages overwritten": _scribble,
    "cut in half": _cut_in_half,
    "another file": _overwrite,
}


def _refusal_and_restoration(server: Server, harm: Callable[[Path], None]) -> list[str]:
    """Returns what is wrong with the refusal of a damaged database, and then restores it."""
    database, copy = server.data_dir / "leadline.db", server.folder / "copy.db"
    shutil.copyfile(database, copy)
    harm(database)
    wrong = refused_start(server, "database")
    for file in server.data_dir.glob("leadline.db*"):
        file.unlink()
    shutil.copyfile(copy, database)
    return wrong
