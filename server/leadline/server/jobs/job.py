"""A job and its events, as values."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from leadline.models.metrics import BlockDiagnosis
from leadline.models.spec import TrainingSpec
from leadline.server.jobs.json_values import JsonValues
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.states import JobState


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job failed: a reason for programs, a message for people."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Why queued jobs do not start: a reason for programs, a message for people."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Cancellation:
    """Why a job was cancelled: a reason for programs, a message for people."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The environment of a job's first worker.

    `threads` and `instruction_set` are for the CPU. `instruction_set` is empty on a GPU,
    and for jobs of older servers, which did not record it.
    """

    threads: int
    leadline_version: str
    torch_version: str
    python_version: str
    instruction_set: str = ""


@dataclass(frozen=True, kw_only=True)
class Queued:
    """The job was accepted."""

    spec: TrainingSpec
    queue_position: int

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON values."""
        return {"spec": self.spec.to_dict(), "queue_position": self.queue_position}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The event that `to_dict` wrote."""
        return cls(
            spec=TrainingSpec.from_dict(values["spec"]), queue_position=values["queue_position"]
        )


@dataclass(frozen=True, kw_only=True)
class Started(JsonValues):
    """The first worker has opened the dataset and built the network."""

    device: str
    device_name: str
    train_images: int
    test_images: int
    class_names: tuple[str, ...]
    parameters: int
    dataset_fingerprint: str
    environment: Environment
    diagnosis: tuple[BlockDiagnosis, ...] = ()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The event that `to_dict` wrote."""
        return cls(
            **{
                **values,
                "class_names": tuple(values["class_names"]),
                "environment": Environment(**values["environment"]),
                "diagnosis": _diagnosis(values),
            }
        )


@dataclass(frozen=True, kw_only=True)
class EpochCompleted(JsonValues):
    """An epoch is complete and its checkpoint durable.

    Losses are in nats, accuracies fractions in [0, 1]; `EpochResult` in the
    contract defines each field.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float
    weights_sha256: str
    diagnosis: tuple[BlockDiagnosis, ...] = ()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The event that `to_dict` wrote."""
        return cls(**{**values, "diagnosis": _diagnosis(values)})


@dataclass(frozen=True, kw_only=True)
class Paused(JsonValues):
    """The job was paused: a reason for programs, a message for people."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Resumed(JsonValues):
    """The job is queued again after a pause."""

    completed_epochs: int
    queue_position: int


@dataclass(frozen=True, kw_only=True)
class Finished(JsonValues):
    """The job reached its final state."""

    state: JobState
    completed_epochs: int
    best_epoch: int
    best_test_accuracy: float
    stopped_early: bool = False
    failure: Failure | None = None
    cancellation: Cancellation | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The event that `to_dict` wrote."""
        failure, cancellation = values["failure"], values.get("cancellation")
        return cls(
            **{
                **values,
                "state": JobState(values["state"]),
                "failure": None if failure is None else Failure(**failure),
                "cancellation": None if cancellation is None else Cancellation(**cancellation),
            }
        )


EventBody = Queued | Started | EpochCompleted | Paused | Resumed | Finished

EVENT_KINDS: dict[str, type[EventBody]] = {
    "queued": Queued,
    "started": Started,
    "epoch": EpochCompleted,
    "paused": Paused,
    "resumed": Resumed,
    "finished": Finished,
}
KIND_OF_EVENT: dict[type[EventBody], str] = {body: kind for kind, body in EVENT_KINDS.items()}


def _diagnosis(values: dict[str, Any]) -> tuple[BlockDiagnosis, ...]:
    # Events of older servers have no diagnosis.
    return tuple(BlockDiagnosis(**block) for block in values.get("diagnosis", ()))


@dataclass(frozen=True, kw_only=True)
class Event:
    """A durable step in a job's life, numbered from 1 without gaps."""

    job_id: str
    sequence: int
    create_time: datetime
    body: EventBody


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a job within its current epoch; transient.

    `phase` is "queued", "starting", "preparing_dataset", "training",
    "evaluating" or "paused".
    """

    phase: str
    epoch: int = 0
    completed_images: int = 0
    total_images: int = 0


@dataclass(frozen=True, kw_only=True)
class Job:
    """The current state of a job.

    Attributes:
        number: its position in the order of submission.
        attempts: how many workers have claimed it; each fences off the earlier ones.
        deadline: the time at which it fails unless it is complete.
        latest_sequence: the sequence of its newest event.
        sweep_id: the sweep that it is part of; None for a job outside sweeps.
        owner: the name of the identity that submitted it; "" without authentication.
    """

    number: int
    job_id: str
    owner: str
    sweep_id: str | None
    spec: TrainingSpec
    state: JobState
    create_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    completed_epochs: int
    best_epoch: int
    best_test_accuracy: float
    latest_epoch: EpochCompleted | None
    failure: Failure | None
    cancellation: Cancellation | None
    device: str
    attempts: int
    latest_sequence: int
    options: JobOptions
    deadline: datetime | None
    pause: Paused | None
    environment: Environment | None


@dataclass(frozen=True, kw_only=True)
class ModelEpoch:
    """A completed epoch and its checkpoint.

    Attributes:
        result: its metrics.
        attempt: the attempt that wrote the checkpoint.
        is_kept: whether the checkpoint exists; False if retention dropped it.
    """

    result: EpochCompleted
    attempt: int
    is_kept: bool


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model that a job has trained: at least one epoch, in order."""

    job: Job
    started: Started
    create_time: datetime
    epochs: tuple[ModelEpoch, ...]
