"""Messages of the service in words."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from leadline.client import (
    Augmentation,
    EpochResult,
    Initialization,
    Job,
    JobState,
    Precision,
    Schedule,
    TrainingSpec,
    Variant,
)
from leadline.client._text import counted
from leadline.v1.job_pb2 import JobFinished, JobPaused, JobQueued, JobResumed, JobStarted


def percent(fraction: float) -> str:
    """A fraction as people read it."""
    return f"{100 * fraction:.2f} %"


def state(value: JobState.ValueType) -> str:
    """A job's state, also one that this version does not know."""
    if value not in JobState.values():
        return f"state {value}"
    return JobState.Name(value).removeprefix("JOB_STATE_").lower()


def local_time(time: Timestamp) -> str:
    """A time on the clock of this machine."""
    moment = datetime.fromtimestamp(time.seconds).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def network(subject: TrainingSpec | Variant) -> str:
    """What a network is: "2 blocks with batch norm"."""
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
    """What a job trains, and how."""
    parts = [
        f"{network(value)} on {value.dataset}",
        f"{counted(value.epochs, 'epoch')} in batches of {value.batch_size}",
        f"{_choice(value, 'optimizer')} at {value.learning_rate:g}",
        *_beyond_the_defaults(value),
        f"seed {value.seed}",
    ]
    return ", ".join(parts)


def _beyond_the_defaults(value: TrainingSpec) -> list[str]:
    """What a spec has beside what every spec has."""
    parts = {
        f"{'Nesterov ' if value.nesterov else ''}momentum {value.momentum:g}": value.momentum,
        f"weight decay {value.weight_decay:g}": value.weight_decay,
        f"{_choice(value, 'schedule')} schedule": value.schedule > Schedule.SCHEDULE_CONSTANT,
        f"{_choice(value, 'initialization')} initialization": (
            value.initialization > Initialization.INITIALIZATION_DEFAULT
        ),
        f"{_choice(value, 'augmentation')} augmentation": (
            value.augmentation > Augmentation.AUGMENTATION_NONE
        ),
        _choice(value, "precision"): value.precision > Precision.PRECISION_FLOAT32,
        f"patience {value.patience}": value.patience,
    }
    return [text for text, is_set in parts.items() if is_set]


def _choice(value: TrainingSpec, field: str) -> str:
    """The name of an enum's value, in words; its number where this version does not know it."""
    enum = TrainingSpec.DESCRIPTOR.fields_by_name[field].enum_type
    number = getattr(value, field)
    if number not in enum.values_by_number:
        return str(number)
    name: str = enum.values_by_number[number].name
    return name.removeprefix(f"{field.upper()}_").lower().replace("_", " ")


def standing(job: Job) -> str:
    """Where a job stands: "jobs/phgcrktpjf is paused, 1 of 3 epochs complete"."""
    done = f"{job.completed_epochs} of {counted(job.spec.epochs, 'epoch')} complete"
    return f"{job.name} is {state(job.state)}, {done}"


def queued(job: str, event: JobQueued) -> str:
    """That a job was accepted."""
    line = f"{job}: {spec(event.spec)}"
    return line if not event.queue_position else f"{line}; {place(event.queue_position)}"


def place(queue_position: int) -> str:
    """A place in the queue."""
    if queue_position == 0:
        return "next in the queue"
    return f"{queue_position} {'job starts' if queue_position == 1 else 'jobs start'} before it"


def started(event: JobStarted) -> str:
    """That a job was started."""
    device = f"{event.device} ({event.device_name})" if event.device_name else event.device
    return (
        f"started on {device}: {event.parameters:,} parameters, {event.train_images:,} training "
        f"and {event.test_images:,} test images"
    )


def paused(event: JobPaused) -> str:
    """That a job was set aside."""
    return f"paused: {event.message or event.reason}"


def resumed(event: JobResumed) -> str:
    """That a job waits for a device again."""
    return f"resumed after epoch {event.completed_epochs}; {place(event.queue_position)}"


def time_left(duration: Duration) -> str:
    """How long something will still take."""
    minutes, seconds = divmod(duration.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left"


def epoch(result: EpochResult, epochs: int) -> str:
    """What an epoch came to; all lines of a job are aligned."""
    width = len(str(epochs)) if epochs else 1
    number = f"{result.epoch:>{width}}/{epochs}" if epochs else f"{result.epoch}"
    return (
        f"epoch {number}   train {100 * result.train_accuracy:6.2f} %   "
        f"test {100 * result.test_accuracy:6.2f} %   loss {result.train_loss:.4f}   "
        f"{result.seconds:.1f} s   {result.images_per_second:,.0f} images/s"
    )


def finished(event: JobFinished) -> str:
    """How a job ended."""
    line = state(event.state)
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


def job_table(jobs: Sequence[Job]) -> tuple[list[str], list[list[str]]]:
    """The headings and rows of a table of jobs; some columns only where any job needs them."""
    columns = [
        column
        for column in _JOB_COLUMNS
        if column.shows is None or any(column.shows(job) for job in jobs)
    ]
    headings = [column.heading for column in columns]
    return headings, [[column.cell(job) for column in columns] for job in jobs]


def _state_and_reason(job: Job) -> str:
    if job.HasField("pause"):
        return f"{state(job.state)} ({job.pause.reason.lower()})"
    return state(job.state)


class _Column(NamedTuple):
    heading: str
    cell: Callable[[Job], str]
    shows: Callable[[Job], object] | None = None


_JOB_COLUMNS = (
    _Column("job", lambda job: job.name),
    _Column("state", _state_and_reason),
    _Column("#priority", lambda job: str(job.options.priority), lambda job: job.options.priority),
    _Column("dataset", lambda job: job.spec.dataset),
    _Column("#blocks", lambda job: depth(job.spec)),
    _Column("batch norm", lambda job: "yes" if job.spec.batch_norm else "no"),
    _Column(
        "residual",
        lambda job: "yes" if job.spec.residual else "no",
        lambda job: job.spec.residual,
    ),
    _Column("#epochs", lambda job: f"{job.completed_epochs}/{job.spec.epochs}"),
    _Column("#best test", lambda job: percent(job.best_test_accuracy) if job.best_epoch else "-"),
    _Column("device", lambda job: job.device or "-"),
    _Column("submitted", lambda job: local_time(job.create_time)),
)
