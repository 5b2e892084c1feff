"""The messages between the server and a worker: one JSON object per line.

The server writes one `Assignment` to the worker's standard input and keeps it
open. End of file means that the server is gone, and the worker exits.
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
        attempt: the number of this worker among the job's workers, 1 for the first.
        spec: what to train.
        completed_epochs: epochs already reported; training starts after the
            checkpoint that it resumes from.
        resume_from: checkpoints to resume from, epoch and folder; the first
            readable one is used. Without one, training starts from scratch.
        device: such as "cuda:0" or "cpu".
        test_accuracies: the accuracies of the reported epochs in order, fractions.
        threads: computing threads on the CPU.
        dataset_source: the source for `leadline.models.datasets.open_dataset`.
        dataset_cache: the folder of decoded datasets.
        dataset_fingerprint: the fingerprint of a dataset in the cache; "" if unknown.
        checkpoint_folder: the folder for the checkpoints of this worker alone.
        max_image_pixels: the most pixels of an image to decode, width times height.
        memory_bytes: the memory limit of this worker; 0 for no limit.
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
    memory_bytes: int

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
    """The worker has loaded its modules and waits for an assignment."""


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """The worker is alive; sent every second."""


@dataclass(frozen=True, kw_only=True)
class DiskFault:
    """A checkpoint could not be written; earlier checkpoints are intact."""

    message: str


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The GPU memory reserved by the worker, in bytes; 0 on the CPU."""

    gpu_memory: int


@dataclass(frozen=True, kw_only=True)
class Done:
    """All epochs are complete, or early stopping has ended the training."""


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

# Messages with nested dataclasses.
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
