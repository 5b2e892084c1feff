"""What a worker is told and what it tells, one JSON object a line.

The server writes one `Assignment` to the worker's standard input and then
keeps it open: its end means that the server is gone, and the worker leaves.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from leadline.models.spec import TrainingSpec
from leadline.server.jobs.job import EpochCompleted, Failure, Progress, Started


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A job for a worker.

    Attributes:
        job_id: the job.
        attempt: which worker on the job this one is, 1 for the first.
        spec: what to train.
        completed_epochs: epochs that were told of; the first to train is the
            one after the checkpoint that it goes on from.
        resume_from: checkpoints to go on from, the first that can be read:
            epoch and folder. None of them: it begins anew.
        device: such as "cuda:0" or "cpu".
        test_accuracies: of the epochs that were told of, in order.
        threads: computing threads on the CPU.
        dataset_source: what `leadline.models.datasets.open_dataset` takes.
        dataset_cache: the folder of decoded datasets.
        dataset_fingerprint: of a dataset that is in the cache; "" where that is
            not known.
        checkpoint_folder: where this worker's checkpoints go, and no other's.
        max_image_pixels: the largest image that is decoded.
    """

    job_id: str
    attempt: int
    spec: TrainingSpec
    completed_epochs: int
    resume_from: tuple[tuple[int, str], ...]
    test_accuracies: tuple[float, ...]
    device: str
    threads: int
    dataset_source: str
    dataset_cache: str
    dataset_fingerprint: str
    checkpoint_folder: str
    max_image_pixels: int

    def to_line(self) -> bytes:
        """The assignment as a line of JSON."""
        values = {**asdict(self), "spec": self.spec.to_dict()}
        return json.dumps(values).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """The assignment that `to_line` wrote."""
        values = json.loads(line)
        return cls(
            **{
                **values,
                "spec": TrainingSpec.from_dict(values["spec"]),
                "resume_from": tuple((epoch, folder) for epoch, folder in values["resume_from"]),
                "test_accuracies": tuple(values["test_accuracies"]),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The worker has loaded what it needs and waits for an assignment."""


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """The worker lives, whatever it is busy with."""


@dataclass(frozen=True, kw_only=True)
class DiskFault:
    """A checkpoint could not be written; what is complete is not harmed."""

    message: str


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What the worker takes up on its GPU, in bytes; 0 on the CPU."""

    gpu_memory: int


@dataclass(frozen=True, kw_only=True)
class Done:
    """Every epoch is complete, or early stopping has come."""


Message = (
    Ready | Heartbeat | Started | Progress | EpochCompleted | Usage | DiskFault | Failure | Done
)

_KINDS: dict[str, type[Message]] = {
    "ready": Ready,
    "heartbeat": Heartbeat,
    "started": Started,
    "progress": Progress,
    "epoch": EpochCompleted,
    "usage": Usage,
    "disk_fault": DiskFault,
    "failed": Failure,
    "done": Done,
}
_KIND_OF_MESSAGE = {message: kind for kind, message in _KINDS.items()}

# Messages that hold others.
_NESTED = (Started, EpochCompleted)


def encode(message: Message) -> bytes:
    """The message as a line of JSON."""
    values = {"kind": _KIND_OF_MESSAGE[type(message)], **asdict(message)}
    return json.dumps(values).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message that `encode` wrote."""
    values: dict[str, Any] = json.loads(line)
    kind = _KINDS[values.pop("kind")]
    return kind.from_dict(values) if kind in _NESTED else kind(**values)
