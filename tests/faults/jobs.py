"""The specs of jobs, their expected results, and checks of the actual results."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy

from faults.setting import Scale
from leadline.client import Client
from leadline.models.checkpoint_files import CheckpointError, open_checkpoint
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.store import Store
from leadline.v1.job_pb2 import JOB_STATE_SUCCEEDED, JobEvent
from leadline.v1.training_spec_pb2 import OPTIMIZER_ADAM, OPTIMIZER_ADAMW, TrainingSpec
from support.wire import tiny_spec

_ADAM: dict[str, Any] = {"optimizer": OPTIMIZER_ADAM, "momentum": 0.0, "learning_rate": 0.001}
_ADAMW: dict[str, Any] = {**_ADAM, "optimizer": OPTIMIZER_ADAMW, "weight_decay": 0.01}
_KINDS: tuple[dict[str, Any], ...] = (
    {"seed": 1, "blocks": 1, **_ADAM},
    {"seed": 2, "blocks": 1, "learning_rate": 0.01},
    {"seed": 3, "blocks": 1, "batch_norm": False, "learning_rate": 0.002},
    {"seed": 4, "blocks": 2, **_ADAMW},
    {"seed": 5, "blocks": 0, "batch_norm": False, "learning_rate": 0.002, "momentum": 0.0},
)

# The events of uninterrupted jobs, by their specs.
_uninterrupted: dict[bytes, list[JobEvent]] = {}


def specs(scale: Scale) -> list[TrainingSpec]:
    """Returns specs of each kind: with state in the optimizer and batch norm, in one, in
    neither."""
    return [tiny_spec(epochs=scale.epochs, **kind) for kind in _KINDS[: scale.specs]]


def reference(target: str, spec: TrainingSpec) -> list[JobEvent]:
    """Returns the events of an uninterrupted job, which is trained at the first call and cached."""
    key = spec.SerializeToString(deterministic=True)
    if key not in _uninterrupted:
        _uninterrupted[key] = train(target, spec)
        if not _uninterrupted[key][-1].finished.state == JOB_STATE_SUCCEEDED:
            raise RuntimeError(f"the job to compare with failed: {_uninterrupted[key][-1]}")
    return comparable(_uninterrupted[key])


def train(target: str, spec: TrainingSpec) -> list[JobEvent]:
    """Trains a job without interruption, and returns its durable events."""
    with Client(target) as client:
        return [event for event in client.train(spec).events() if event.sequence]


def replay(target: str, job: str) -> list[JobEvent]:
    """Returns the durable events of a job, replayed by the server."""
    with Client(target) as client:
        return [event for event in client.job(job).events() if event.sequence]


def comparable(events: Iterable[JobEvent]) -> list[JobEvent]:
    """Returns durable events without the fields that differ between any two jobs.

    These are times, names, and the number of jobs queued before it.
    """
    return [_comparable(event) for event in events if event.sequence]


def _comparable(event: JobEvent) -> JobEvent:
    bare = JobEvent()
    bare.CopyFrom(event)
    bare.ClearField("create_time")
    bare.ClearField("job")
    match bare.WhichOneof("event"):
        case "queued":
            bare.queued.ClearField("queue_position")
        case "epoch":
            bare.epoch.ClearField("seconds")
            bare.epoch.ClearField("images_per_second")
            bare.epoch.ClearField("model")
        case "finished":
            bare.finished.ClearField("model")
    return bare


@contextlib.contextmanager
def open_store(data_dir: Path) -> Iterator[Store]:
    """Opens the job store of a running or stopped server, without a change to it."""
    engine = sqlalchemy.create_engine(f"sqlite:///{data_dir / 'leadline.db'}")
    try:
        yield Store(engine)
    finally:
        engine.dispose()


def damage(data_dir: Path, job: str) -> list[str]:
    """Returns what is wrong with the files of the epochs in the store.

    It reads the checkpoint of every epoch, and compares the hash of the weights with the event's.
    """
    job_id = job.removeprefix("jobs/")
    artifacts = Artifacts(data_dir / "models")
    with open_store(data_dir) as store:
        epochs = store.models.get(job_id).epochs
    return [
        f"{job} epoch {epoch.result.epoch}: {what}"
        for epoch in epochs
        for what in _wrong_files(
            artifacts.folder(job_id, epoch.attempt),
            epoch.result.epoch,
            epoch.result.weights_sha256,
        )
    ]


def _wrong_files(folder: Path, epoch: int, recorded: str) -> Iterator[str]:
    try:
        reader = open_checkpoint(folder, epoch)
        for kind in ("weights", "predictions"):
            reader.read(kind)
    except CheckpointError as error:
        yield str(error)
        return
    if reader.info.weights_sha256 != recorded:
        yield "has other weights than its event says"
