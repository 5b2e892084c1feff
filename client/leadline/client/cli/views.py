"""Shows the events of a job as JSON, as lines, or live."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Generic, Self, TypeVar

from leadline.client import JobEvent, JobPhase, JobProgress, RpcError, SweepEvent
from leadline.client.cli import describe
from leadline.client.cli.output import Output

_PHASES = {
    JobPhase.JOB_PHASE_QUEUED: "queued",
    JobPhase.JOB_PHASE_PAUSED: "paused",
    JobPhase.JOB_PHASE_STARTING: "starting",
    JobPhase.JOB_PHASE_PREPARING_DATASET: "preparing the dataset",
}


Event_contra = TypeVar("Event_contra", bound=JobEvent | SweepEvent, contravariant=True)


class View(Generic[Event_contra]):
    """Shows a job or a sweep, within a `with` block; the base prints line by line.

    Attributes:
        progress_interval: seconds between the progress events that it needs; None for none.
    """

    progress_interval: float | None = None

    def __init__(self, output: Output) -> None:
        self._output = output
        self._hold = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    @abstractmethod
    def show(self, event: Event_contra) -> None:
        """Shows an event."""

    def connection_lost(self, text: str) -> None:
        """Reports that the connection is lost and events are late; by default on stderr."""
        self._output.note(text)

    def _job_line(self, event: JobEvent, epochs: int) -> str | None:
        """The line for an event of a job; for progress, only if the reason of its hold changes."""
        if not event.HasField("progress"):
            return describe.event_line(event, epochs)
        hold, before = event.progress.hold, self._hold
        self._hold = hold.reason
        return f"held: {hold.message}" if hold.reason not in ("", before) else None


class Outage:
    """Reports a lost connection only once, although several attempts to reconnect may fail."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lasts = False

    def begin(self, error: RpcError, _delay: float) -> None:
        """Records a broken stream; called before each attempt to reconnect."""
        if not self._lasts:
            # With a reason, the message is the server's: the problem, then advice, which the client
            # follows anyway. Without a reason, it is gRPC's remark about a socket.
            why = f" ({error.message.partition(':')[0]})" if error.reason else ""
            self._say(f"connection lost{why}; reconnecting")
        self._lasts = True

    def end(self) -> None:
        """Records that the server answers again."""
        self._lasts = False


class JsonView(View[JobEvent | SweepEvent]):
    """Each event as a JSON line."""

    def show(self, event: JobEvent | SweepEvent) -> None:
        """Prints the event."""
        self._output.message(event)


class LineView(View[JobEvent]):
    """A line for each durable event, and for each reason of a hold."""

    progress_interval = 5.0

    def __init__(self, output: Output, epochs: int) -> None:
        """Shows a job of this many epochs; 0 if unknown until the `queued` event."""
        super().__init__(output)
        self._epochs = epochs

    def show(self, event: JobEvent) -> None:
        """Prints the event."""
        if event.HasField("queued"):
            self._epochs = event.queued.spec.epochs
        line = self._job_line(event, self._epochs)
        if line is not None:
            self._output.text(line)


class LiveView(View[JobEvent]):
    """A line for each durable event, above a bar that moves within the epoch."""

    progress_interval = 0.2

    def __init__(self, output: Output, epochs: int) -> None:
        """Shows a job of this many epochs; 0 if unknown until the `queued` event."""
        from rich import progress  # noqa: PLC0415 - only a terminal needs it

        super().__init__(output)
        self._epochs = epochs
        self._accuracies = ""
        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[detail]}", markup=False),
            progress.TimeElapsedColumn(),
            console=output.console,
            transient=True,
        )
        self._task = self._progress.add_task("waiting", total=None, detail="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def show(self, event: JobEvent) -> None:
        """Prints the event, or moves the bar."""
        match event.WhichOneof("event"):
            case "progress":
                self._move(event.progress)
            case "queued":
                self._epochs = event.queued.spec.epochs
            case "paused":
                self._rest("paused")
            case "resumed":
                self._rest("queued")
            case "epoch":
                result = event.epoch
                self._accuracies = (
                    f"train {result.train_accuracy:.1%}, test {result.test_accuracy:.1%}, "
                    f"loss {result.train_loss:.3f}"
                )
        line = self._job_line(event, self._epochs)
        if line is not None:
            self._progress.console.print(line, soft_wrap=True)

    def connection_lost(self, text: str) -> None:
        """Shows the lost connection above the bar and in the bar."""
        self._progress.console.print(text, soft_wrap=True)
        self._rest("reconnecting")

    def _rest(self, description: str) -> None:
        # The bar's progress within an epoch is no longer valid.
        self._progress.update(self._task, description=description, total=None, detail="")

    def _move(self, progress: JobProgress) -> None:
        self._progress.update(
            self._task,
            description=self._description(progress),
            completed=progress.completed_images,
            total=progress.total_images or None,
            detail=self._detail(progress),
        )

    def _description(self, progress: JobProgress) -> str:
        match progress.phase:
            case JobPhase.JOB_PHASE_TRAINING:
                return f"epoch {progress.epoch}/{self._epochs}"
            case JobPhase.JOB_PHASE_EVALUATING:
                return f"epoch {progress.epoch}/{self._epochs}, evaluating"
            case phase:
                return _PHASES.get(phase, "waiting")

    def _detail(self, progress: JobProgress) -> str:
        if progress.HasField("hold"):
            return "held"
        if progress.phase == JobPhase.JOB_PHASE_QUEUED:
            return describe.place(progress.queue_position)
        parts = []
        if progress.total_images:
            parts.append(f"{progress.completed_images:,}/{progress.total_images:,} images")
        if self._accuracies:
            parts.append(self._accuracies)
        if progress.HasField("time_left"):
            parts.append(describe.time_left(progress.time_left))
        return "; ".join(parts)


def make_view(output: Output, *, epochs: int = 0) -> View[JobEvent]:
    """Makes the view for the output, for a job of this number of epochs; 0 if unknown."""
    if output.as_json:
        return JsonView(output)
    return LiveView(output, epochs) if output.is_live else LineView(output, epochs)
