"""Describes messages about sweeps in words."""

from collections.abc import Sequence

from google.protobuf.struct_pb2 import Struct

from leadline.client import JobEvent, Sweep, SweepTable
from leadline.client._messages import state_name
from leadline.client._text import counted
from leadline.client.cli import describe
from leadline.v1.sweep_pb2 import SeedStatistics, SweepBestDepth, SweepCounts, SweepFinished

# The order of the counts.
_COUNTS = ("running", "queued", "paused", "succeeded", "failed", "cancelled")


def values(struct: Struct) -> str:
    """The axis values of a job or a variant: "blocks=2, batch_norm=true"."""
    # Sorted by name, because a map has no order.
    return ", ".join(f"{field}={plain(struct[field])}" for field in sorted(struct)) or "all"


def counts(jobs: SweepCounts) -> str:
    """How many jobs are in which state: "2 running, 4 queued"."""
    parts = [f"{getattr(jobs, name)} {name}" for name in _COUNTS if getattr(jobs, name)]
    if jobs.median_stopped:
        parts.append(f"{jobs.median_stopped} of them stopped by the median rule")
    return ", ".join(parts)


def standing(sweep: Sweep) -> str:
    """The state of a sweep."""
    return f"{sweep.name} is {state_name(sweep)}: {counts(sweep.counts)}"


def job_event(label: str, event: JobEvent, epochs: int) -> str | None:
    """The line for an event of a job; None for an event without one."""
    line = describe.event_line(event, epochs)
    if event.HasField("started"):
        line = f"started on {event.started.device}"
    return None if line is None or event.HasField("queued") else f"{label}: {line}"


def finished(event: SweepFinished) -> str:
    """How a sweep ended."""
    return f"{state_name(event)}: {counts(event.counts)}"


def variant_table(table: SweepTable) -> tuple[list[str], list[list[str]]]:
    """The headings and rows of the results by variant."""
    fields = sorted({field for variant in table.variants for field in variant.values})
    headings = [*map(_heading, fields), "#seeds", "#best test", "#spread", "#last test", "#spread"]
    rows = [
        [
            *(plain(variant.values[field]) for field in fields),
            f"{variant.best_test_accuracy.count}/{len(variant.jobs)}",
            *_statistics(variant.best_test_accuracy),
            *_statistics(variant.last_test_accuracy),
        ]
        for variant in table.variants
    ]
    return headings, rows


def best_depth(best: SweepBestDepth) -> str:
    """The best depth, and the probability that it is the best."""
    among = f" with {values(best.values)}" if best.values.fields else ""
    line = f"best depth{among}: {counted(best.blocks, 'block')}, "
    line += f"mean {describe.percent(best.mean_test_accuracy)}"
    if not best.HasField("runner_up_blocks"):
        return f"{line}; no other depth to compare"
    line += f", {100 * best.margin:.2f} points above {counted(best.runner_up_blocks, 'block')}"
    if not best.HasField("confidence"):
        return f"{line}; its likelihood needs two seeds of each depth"
    return f"{line}; {100 * best.confidence:.1f} % likely the best depth tried"


def sweep_list(sweeps: Sequence[Sweep]) -> tuple[list[str], list[list[str]]]:
    """The headings and rows of a list of sweeps."""
    headings = ["sweep", "state", "dataset", "axes", "jobs", "submitted"]
    has_owners = any(sweep.owner for sweep in sweeps)
    return headings + ["owner"] * has_owners, [
        [
            sweep.name,
            state_name(sweep),
            sweep.spec.dataset,
            ", ".join(f"{axis.field} ({len(axis.values)})" for axis in sweep.axes),
            counts(sweep.counts),
            describe.local_time(sweep.create_time),
            *[sweep.owner or "-"] * has_owners,
        ]
        for sweep in sweeps
    ]


def job_list(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    """The headings and rows of a sweep's jobs."""
    fields = [axis.field for axis in sweep.axes]
    headings = ["job", *map(_heading, fields), "state", "#epochs", "#best test", "#last test"]
    return headings, [
        [
            job.job,
            *(plain(job.values[field]) for field in fields),
            "stopped" if job.median_stopped else state_name(job),
            str(job.completed_epochs),
            describe.percent(job.best_test_accuracy) if job.completed_epochs else "-",
            describe.percent(job.last_test_accuracy) if job.completed_epochs else "-",
        ]
        for job in sweep.jobs
    ]


def _heading(field: str) -> str:
    """A field's name in words, so that a narrow terminal can break it."""
    return field.replace("_", " ")


def _statistics(accuracy: SeedStatistics) -> list[str]:
    if not accuracy.count:
        return ["-", "-"]
    spread = "-"
    if accuracy.HasField("standard_deviation"):
        spread = f"{100 * accuracy.standard_deviation:.2f}"
    return [describe.percent(accuracy.mean), spread]


def plain(value: object) -> str:
    """A value of an axis in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
