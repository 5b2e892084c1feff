"""A database that is locked by another program, or damaged when the server starts."""

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
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.training_service_pb2 import TrainJobRequest
from leadline.v1.training_spec_pb2 import TrainingSpec
from support.wire import connect, reason

# Longer than the five seconds for which the server waits for the lock.
_LOCKED_SECONDS = 7.0


def spoil_database(setting: Setting) -> list[Figure]:
    """Locks the database of a server that trains; then damages it while the server is away."""
    server = setting.server()
    damages = list(_DAMAGES.items())[: setting.scale.faults]
    with server:
        expected = reference(server.target, specs(setting.scale)[0])
        wrong_when_locked, job = _lock(server, expected, setting)
        told = replay(server.target, job)
        server.stop()
    wrong = []
    for name, harm in damages:
        setting.say(f"starting on a damaged database: {name}")
        wrong += [f"{name}: {what}" for what in _refusal_and_restoration(server, harm)]
    with server:
        if replay(server.target, job) != told:
            wrong.append("events were lost although the database was restored")
        wrong += damage(server.data_dir, job)
    return [
        holds(
            "the database locked by another program: submissions are told, no event is lost, "
            "jobs go on to the same weights",
            wrong_when_locked,
        ),
        holds(
            f"a damaged database ({', '.join(name for name, _ in damages)}): the start is refused "
            "with the reason, and a copy of the database restores everything",
            wrong,
        ),
    ]


def _lock(server: Server, expected: list[JobEvent], setting: Setting) -> tuple[list[str], str]:
    """Has another program hold the database while a job trains and the same is submitted again."""
    wrong, spec, request_id = [], specs(setting.scale)[0], str(uuid.uuid4())
    with Client(server.target) as client:
        job = client.train(spec)
        wait_until(lambda: job.refresh().completed_epochs > 0, "an epoch was complete")
        setting.say(f"locking the database for {_LOCKED_SECONDS:.0f} s")
        with _locked(server.data_dir / "leadline.db"):
            said = _answer_to_submission(server.target, spec, request_id)
            if said != "STORAGE_LOCKED":
                wrong.append(f"a submission was answered with {said!r}")
            if client.health() is not HealthStatus.SERVING:
                wrong.append("health was not SERVING")
            if not job.refresh().completed_epochs:
                wrong.append("an acknowledged epoch was lost")
        before = {one.name for one in client.jobs()}
        second = client.train(spec, request_id=request_id)
        if any(comparable(one.events()) != expected for one in (job, second)):
            wrong.append("other events or weights")
        if second.name in before:
            wrong.append("the refused submission had made a job")
    return wrong + damage(server.data_dir, job.name), job.name


def _answer_to_submission(target: str, spec: TrainingSpec, request_id: str) -> str:
    """The reason for which a server refuses a submission for now; "OK" where it does not."""
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
    """Holds the database, for so long at least."""
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
    """Overwrites all but the first page, which has the names of the tables."""
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
    """What is wrong with how a server refuses a damaged database, which is then restored."""
    database, copy = server.data_dir / "leadline.db", server.folder / "copy.db"
    shutil.copyfile(database, copy)
    harm(database)
    wrong = refused_start(server, "database")
    for file in server.data_dir.glob("leadline.db*"):
        file.unlink()
    shutil.copyfile(copy, database)
    return wrong
