"""How the events of a sweep are shown: as JSON, as lines, or as a live table."""

import os
import statistics
from typing import TYPE_CHECKING, Protocol

from leadline.client import EpochResult, RpcError, SweepEvent
from leadline.client._text import counted
from leadline.client.cli import describe, describe_sweep
from leadline.client.cli.output import Output
from leadline.client.cli.views import reconnecting_line

if TYPE_CHECKING:
    from rich.table import Table


class SweepView(Protocol):
    """Shows a sweep."""

    def show(self, event: SweepEvent) -> None:
        """Shows an event."""

    def reconnecting(self, error: RpcError, delay: float) -> None:
        """Shows that the stream broke and will be taken up again after `delay` seconds."""

    def close(self) -> None:
        """Leaves the screen as it is to stay."""


class JsonView:
    """Each event as a JSON line."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def show(self, event: SweepEvent) -> None:
        """Prints the event."""
        self._output.message(event)

    def reconnecting(self, error: RpcError, delay: float) -> None:
        """Says so on stderr, since it is no result."""
        self._output.note(reconnecting_line(error, delay))

    def close(self) -> None:
        """Nothing is left to do."""


class LineView:
    """A line for each durable event, and the table at the end."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._labels: dict[str, str] = {}
        self._epochs = 0

    def show(self, event: SweepEvent) -> None:
        """Prints the event."""
        match event.WhichOneof("event"):
            case "queued":
                self._labels = {
                    one.job: describe_sweep.values(one.values) for one in event.queued.jobs
                }
                # An axis may say otherwise for each job.
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

    def reconnecting(self, error: RpcError, delay: float) -> None:
        """Says so on stderr, since it is no result."""
        self._output.note(reconnecting_line(error, delay))

    def close(self) -> None:
        """Nothing is left to do."""


class LiveView:
    """A table of the variants that changes as epochs are completed."""

    def __init__(self, output: Output) -> None:
        from rich.live import Live  # noqa: PLC0415 - only a terminal needs it

        self._output = output
        self._variants: dict[str, list[str]] = {}
        self._latest: dict[str, EpochResult] = {}
        self._best: dict[str, float] = {}
        self._states: dict[str, str] = {}
        self._live = Live(console=output.console, transient=True, auto_refresh=False)
        self._live.start()

    def show(self, event: SweepEvent) -> None:
        """Prints the event, or redraws the table."""
        match event.WhichOneof("event"):
            case "queued":
                self._output.console.print(_queued(event), soft_wrap=True)
                for one in event.queued.jobs:
                    seedless = type(one.values)()
                    seedless.CopyFrom(one.values)
                    seedless.fields.pop("seed", None)
                    label = describe_sweep.values(seedless)
                    self._variants.setdefault(label, []).append(one.job)
            case "job":
                self._take(event)
            case "finished":
                self.close()
                show_finished(self._output, event)
                return
        self._live.update(self._table(), refresh=True)

    def reconnecting(self, error: RpcError, delay: float) -> None:
        """Says so above the table."""
        self._live.console.print(reconnecting_line(error, delay), soft_wrap=True)

    def close(self) -> None:
        """Takes the table off the screen."""
        self._live.stop()

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
                self._states[job] = describe.state(event.job.finished.state)

    def _table(self) -> "Table":
        from rich import box  # noqa: PLC0415 - only a terminal needs it
        from rich.table import Table  # noqa: PLC0415

        table = Table("variant", "jobs", "epochs", "best test", "last test", box=box.SIMPLE_HEAD)
        for label, jobs in self._variants.items():
            states = [self._states.get(job, "queued") for job in jobs]
            begun = [job for job in jobs if job in self._latest]
            table.add_row(
                label,
                ", ".join(f"{states.count(one)} {one}" for one in dict.fromkeys(states)),
                ", ".join(str(self._latest[job].epoch) for job in begun) or "-",
                _mean([self._best[job] for job in begun]),
                _mean([self._latest[job].test_accuracy for job in begun]),
            )
        return table


def make_sweep_view(output: Output) -> SweepView:
    """The view for where the output goes."""
    if output.as_json:
        return JsonView(output)
    # A dumb terminal cannot redraw a line.
    if output.console.is_terminal and os.environ.get("TERM") != "dumb":
        return LiveView(output)
    return LineView(output)


def show_finished(output: Output, event: SweepEvent) -> None:
    """Prints how a sweep ended, its table, and the best depths."""
    output.text(describe_sweep.finished(event.finished))
    output.table(*describe_sweep.variant_table(event.finished.table))
    for one in event.finished.table.best_depths:
        output.text(describe_sweep.best_depth(one))


def _queued(event: SweepEvent) -> str:
    axes = ", ".join(axis.field for axis in event.queued.axes)
    return f"{event.sweep}: {counted(len(event.queued.jobs), 'job')} that differ in {axes}"


def _mean(fractions: list[float]) -> str:
    return describe.percent(statistics.fmean(fractions)) if fractions else "-"
