"""Describes messages of the service in words."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from leadline.client import (
    EpochResult,
    Job,
    JobEvent,
    Model,
    Split,
    TrainingSpec,
    Variant,
)
from leadline.client._messages import enum_name, state_name
from leadline.client._text import counted
from leadline.v1.job_pb2 import JobFinished, JobQueued, JobStarted

Row = TypeVar("Row", Job, Model)


def percent(fraction: float) -> str:
    """A fraction in percent."""
    return f"{100 * fraction:.2f} %"


def images_of(split: Split.ValueType, count: int) -> str:
    """A number of images of a split: "200 test images"."""
    return f"{count:,} {'training' if split == Split.SPLIT_TRAIN else 'test'} images"


def reason(job: Job) -> str:
    """Why a job failed, is paused or held: "the loss is not finite (DIVERGED)"; else empty."""
    for field in ("failure", "pause", "hold"):
        if job.HasField(field):
            cause = getattr(job, field)
            return f"{cause.message} ({cause.reason})" if cause.message else str(cause.reason)
    return ""


def local_time(time: Timestamp) -> str:
    """A time in the local time zone."""
    moment = datetime.fromtimestamp(time.seconds).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def network(subject: TrainingSpec | Variant) -> str:
    """A network in words: "2 blocks with batch norm"."""
    kind = "residual block" if subject.residual else "block"
    form = block_form(subject.block_convolutions, batch_norm=subject.batch_norm)
    return f"{counted(subject.blocks, kind)} {form}"


def block_form(convolutions: int, *, batch_norm: bool) -> str:
    """How blocks are built: "with batch norm", or "of 2 convolutions with batch norm"."""
    norm = "with batch norm" if batch_norm else "without batch norm"
    return f"of {convolutions} convolutions {norm}" if convolutions > 1 else norm


def depth(subject: TrainingSpec | Variant) -> str:
    """The depth in a table: "10", or "10x2" for 10 blocks of 2 convolutions."""
    convolutions = subject.block_convolutions
    return f"{subject.blocks}x{convolutions}" if convolutions > 1 else str(subject.blocks)


def spec(value: TrainingSpec) -> str:
    """A spec in words."""
    parts = [
        f"{network(value)} on {value.dataset}",
        f"{counted(value.epochs, 'epoch')} in batches of {value.batch_size}",
        f"{_choice(value, 'optimizer')} at {value.learning_rate:g}",
        *_beyond_the_defaults(value),
        f"seed {value.seed}",
    ]
    return ", ".join(parts)


# The first value of an enum after the unspecified one, which means the same.
_DEFAULT = 1


def _beyond_the_defaults(value: TrainingSpec) -> list[str]:
    """The parts of a spec that differ from the defaults."""
    parts = {
        f"{'Nesterov ' if value.nesterov else ''}momentum {value.momentum:g}": value.momentum,
        f"weight decay {value.weight_decay:g}": value.weight_decay,
        **{
            f"{_choice(value, field)} {field}": getattr(value, field) > _DEFAULT
            for field in ("schedule", "initialization", "augmentation")
        },
        _choice(value, "precision"): value.precision > _DEFAULT,
        f"patience {value.patience}": value.patience,
    }
    return [text for text, differs in parts.items() if differs]


def _choice(value: TrainingSpec, field: str) -> str:
    return enum_name(value, field).replace("_", " ")


def standing(job: Job) -> str:
    """The state of a job: "jobs/phgcrktpjf is paused, 1 of 3 epochs complete"."""
    done = f"{job.completed_epochs} of {counted(job.spec.epochs, 'epoch')} complete"
    why = f": {reason(job)}" if job.HasField("failure") else ""
    return f"{job.name} is {state_name(job)}, {done}{why}"


def queued(job: str, event: JobQueued) -> str:
    """The line for an accepted job."""
    line = f"{job}: {spec(event.spec)}"
    return line if not event.queue_position else f"{line}; {place(event.queue_position)}"


def place(queue_position: int) -> str:
    """A place in the queue."""
    if queue_position == 0:
        return "next in the queue"
    return f"{queue_position} {'job starts' if queue_position == 1 else 'jobs start'} before it"


def started(event: JobStarted) -> str:
    """The line for a started job."""
    device = f"{event.device} ({event.device_name})" if event.device_name else event.device
    return (
        f"started on {device}: {event.parameters:,} parameters, {event.train_images:,} training "
        f"and {event.test_images:,} test images"
    )


def time_left(duration: Duration) -> str:
    """The remaining time."""
    minutes, seconds = divmod(duration.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left"


def epoch(result: EpochResult, epochs: int) -> str:
    """The line for an epoch's result; all lines of a job are aligned."""
    width = len(str(epochs)) if epochs else 1
    number = f"{result.epoch:>{width}}/{epochs}" if epochs else f"{result.epoch}"
    return (
        f"epoch {number}   train {100 * result.train_accuracy:6.2f} %   "
        f"test {100 * result.test_accuracy:6.2f} %   loss {result.train_loss:.4f}   "
        f"{result.seconds:.1f} s   {result.images_per_second:,.0f} images/s"
    )


def finished(event: JobFinished) -> str:
    """How a job ended."""
    line = state_name(event)
    if event.stopped_early:
        line += f" early, after {counted(event.completed_epochs, 'epoch')}"
    if event.HasField("failure"):
        line += f": {event.failure.message} ({event.failure.reason})"
    if event.best_epoch:
        line += (
            f": best epoch {event.best_epoch}, {percent(event.best_test_accuracy)} of the test "
            f"images right; {event.model}"
        )
    return line


_LINES: Mapping[str, Callable[[JobEvent, int], str]] = {
    "queued": lambda event, _: queued(event.job, event.queued),
    "started": lambda event, _: started(event.started),
    "epoch": lambda event, epochs: epoch(event.epoch, epochs),
    "paused": lambda event, _: f"paused: {event.paused.message or event.paused.reason}",
    "resumed": lambda event, _: (
        f"resumed after epoch {event.resumed.completed_epochs}; "
        f"{place(event.resumed.queue_position)}"
    ),
    "finished": lambda event, _: finished(event.finished),
}


def event_line(event: JobEvent, epochs: int) -> str | None:
    """The line for an event; None for a kind without one, or an unknown kind."""
    line = _LINES.get(event.WhichOneof("event") or "")
    return line(event, epochs) if line else None


def _state_and_reason(job: Job) -> str:
    cause = job.failure.reason or job.pause.reason or job.hold.reason
    return f"{state_name(job)} ({cause.lower()})" if cause else state_name(job)


class _Column(NamedTuple, Generic[Row]):
    """A column: its heading, its cells, and whether a row needs it; None if it is always shown."""

    heading: str
    cell: Callable[[Row], str]
    is_needed: Callable[[Row], object] | None = None


def table(
    columns: Sequence[_Column[Row]], rows: Sequence[Row]
) -> tuple[list[str], list[list[str]]]:
    """The headings and rows of a table."""
    columns = [
        column for column in columns if column.is_needed is None or any(map(column.is_needed, rows))
    ]
    return [column.heading for column in columns], [
        [column.cell(row) for column in columns] for row in rows
    ]


def size(count: float) -> str:
    """A number of bytes in decimal units: "181.3 kB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004 - decimal units
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _yes(value: object) -> str:
    return "yes" if value else "no"


# The most important columns come first, because a narrow terminal omits the last ones.
JOB_COLUMNS: Sequence[_Column[Job]] = (
    _Column("job", lambda job: job.name),
    _Column("state", _state_and_reason),
    _Column("#priority", lambda job: str(job.options.priority), lambda job: job.options.priority),
    _Column("dataset", lambda job: job.spec.dataset),
    _Column("#blocks", lambda job: depth(job.spec)),
    _Column("batch norm", lambda job: _yes(job.spec.batch_norm)),
    _Column("residual", lambda job: _yes(job.spec.residual), lambda job: job.spec.residual),
    _Column("#epochs", lambda job: f"{job.completed_epochs}/{job.spec.epochs}"),
    _Column("#best test", lambda job: percent(job.best_test_accuracy) if job.best_epoch else "-"),
    _Column("device", lambda job: job.device or "-"),
    _Column("submitted", lambda job: local_time(job.create_time)),
    _Column("owner", lambda job: job.owner or "-", lambda job: job.owner),
)

MODEL_COLUMNS: Sequence[_Column[Model]] = (
    _Column("model", lambda model: model.name),
    _Column("dataset", lambda model: model.variant.dataset),
    _Column("#blocks", lambda model: depth(model.variant)),
    _Column("batch norm", lambda model: _yes(model.variant.batch_norm)),
    _Column(
        "residual",
        lambda model: _yes(model.variant.residual),
        lambda model: model.variant.residual,
    ),
    _Column("#best test", lambda model: percent(model.best_test_accuracy)),
    _Column("#epochs", lambda model: f"{len(model.epochs)}/{model.spec.epochs}"),
    _Column("#best epoch", lambda model: str(model.best_epoch)),
    _Column("#parameters", lambda model: f"{model.parameters:,}"),
    _Column("trained", lambda model: local_time(model.create_time)),
    _Column("owner", lambda model: model.owner or "-", lambda model: model.owner),
)
