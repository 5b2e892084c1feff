"""Shows the events of a sweep as JSON, as lines, or as a live table."""

import statistics
from typing import TYPE_CHECKING, Self

from google.protobuf.struct_pb2 import Struct

from leadline.client import EpochResult, SweepEvent, SweepTable, state_name
from leadline.client._text import counted
from leadline.client.cli import describe, describe_sweep
from leadline.client.cli.output import Output
from leadline.client.cli.views import JsonView, View

if TYPE_CHECKING:
    from rich.table import Table


class LineView(View[SweepEvent]):
    """A line for each durable event, and the table at the end."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._labels: dict[str, str] = {}
        self._epochs = 0

    def show(self, event: SweepEvent) -> None:
        """Prints the event."""
        match event.WhichOneof("event"):
            case "queued":
                self._labels = {
                    entry.job: describe_sweep.values(entry.values) for entry in event.queued.jobs
                }
                # An axis may set another number for each job.
                has_axis = any(axis.field == "epochs" for axis in event.queued.axes)
                self._epochs = 0 if has_axis else event.queued.spec.epochs
                self._output.text(_queued(event))
            case "job":
                label = self._labels.get(event.job.job, event.job.job)
                line = describe_sweep.job_event(label, event.job, self._epochs)
                if line is not None:
                    self._output.text(line)
            case "finished":
                show_finished(self._output, event)


class LiveView(View[SweepEvent]):
    """A table of the variants that changes as epochs are completed."""

    def __init__(self, output: Output) -> None:
        from rich.live import Live  # noqa: PLC0415 - only a terminal needs it

        super().__init__(output)
        self._variants: dict[str, list[str]] = {}
        self._latest: dict[str, EpochResult] = {}
        self._best: dict[str, float] = {}
        self._states: dict[str, str] = {}
        self._live = Live(console=output.console, transient=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.stop()

    def show(self, event: SweepEvent) -> None:
        """Prints the event, or redraws the table."""
        match event.WhichOneof("event"):
            case "queued":
                self._output.console.print(_queued(event), soft_wrap=True)
                for entry in event.queued.jobs:
                    variant = Struct()
                    variant.CopyFrom(entry.values)
                    variant.fields.pop("seed", None)
                    label = describe_sweep.values(variant)
                    self._variants.setdefault(label, []).append(entry.job)
            case "job":
                self._take(event)
            case "finished":
                self._live.stop()
                show_finished(self._output, event)
                return
        self._live.update(self._table(), refresh=True)

    def connection_lost(self, text: str) -> None:
        """Shows the lost connection above the table."""
        self._live.console.print(text, soft_wrap=True)

    def _take(self, event: SweepEvent) -> None:
        job = event.job.job
        match event.job.WhichOneof("event"):
            case "started" | "resumed":
                self._states[job] = "running"
            case "epoch":
                result = event.job.epoch
                self._latest[job] = result
                self._best[job] = max(result.test_accuracy, self._best.get(job, 0.0))
            case "paused":
                self._states[job] = "paused"
            case "finished":
                self._states[job] = state_name(event.job.finished)
                if event.job.finished.HasField("failure"):
                    line = f"{job} {describe.finished(event.job.finished)}"
                    self._live.console.print(line, soft_wrap=True)

    def _table(self) -> "Table":
        from rich import box  # noqa: PLC0415 - only a terminal needs it
        from rich.table import Table  # noqa: PLC0415

        table = Table("variant", "jobs", "epochs", "best test", "last test", box=box.SIMPLE_HEAD)
        for label, jobs in self._variants.items():
            states = [self._states.get(job, "queued") for job in jobs]
            begun = [job for job in jobs if job in self._latest]
            table.add_row(
                label,
                ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)),
                ", ".join(str(self._latest[job].epoch) for job in begun) or "-",
                _mean([self._best[job] for job in begun]),
                _mean([self._latest[job].test_accuracy for job in begun]),
            )
        return table


def make_sweep_view(output: Output) -> View[SweepEvent]:
    """Makes the view for the output."""
    if output.as_json:
        return JsonView(output)
    return LiveView(output) if output.is_live else LineView(output)


def show_finished(output: Output, event: SweepEvent) -> None:
    """Prints how a sweep ended, and its results."""
    output.text(describe_sweep.finished(event.finished))
    show_results(output, event.finished.table)


def show_results(output: Output, table: SweepTable) -> None:
    """Prints the table of a sweep's variants, and the best depths."""
    output.table(*describe_sweep.variant_table(table))
    for best in table.best_depths:
        output.text(describe_sweep.best_depth(best))


def _queued(event: SweepEvent) -> str:
    axes = ", ".join(axis.field for axis in event.queued.axes)
    return f"{event.sweep}: {counted(len(event.queued.jobs), 'job')} that differ in {axes}"


def _mean(fractions: list[float]) -> str:
    return describe.percent(statistics.fmean(fractions)) if fractions else "-"
