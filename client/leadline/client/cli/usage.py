"""`leadline usage`."""

import click

from leadline.client import JobDiskUsage, ListDiskUsageResponse
from leadline.client.cli import describe
from leadline.client.cli.commands import command
from leadline.client.cli.options import Session, session_options
from leadline.client.cli.output import Output

_KINDS = ("weights", "predictions", "optimizer", "other")


@command("leadline usage", "leadline usage --jobs 100", "leadline usage --json | jq .jobs")
@click.option(
    "--jobs",
    "count",
    metavar="N",
    type=click.IntRange(min=0),
    default=20,
    help="How many jobs to show, those first that take most.  [default: 20]",
)
@session_options
def usage(session: Session, *, count: int) -> None:
    """Show what uses the space on the server's disk, by kind and by job."""
    with session.client() as client:
        found = client.disk_usage(page_size=100)
    if session.output.as_json:
        session.output.message(found)
        return
    _show_kinds(session.output, found)
    _show_jobs(session.output, found, count)


def _show_kinds(output: Output, found: ListDiskUsageResponse) -> None:
    kinds = {kind: sum(_bytes(job, kind) for job in found.jobs) for kind in _KINDS}
    kinds |= {"database": found.database_bytes, "datasets": found.datasets_bytes}
    kinds["all"] = sum(kinds.values())
    output.table(
        ("kind", "#space"), [(kind, describe.size(number)) for kind, number in kinds.items()]
    )
    free, floor = describe.size(found.free_bytes), describe.size(found.floor_bytes)
    output.text(f"{free} are free on the disk; below {floor} no job starts.")


def _show_jobs(output: Output, found: ListDiskUsageResponse, count: int) -> None:
    largest = sorted((job for job in found.jobs if _total(job)), key=_total, reverse=True)
    if not largest or not count:
        return
    rows = [
        (
            job.job,
            str(job.checkpoints),
            *(describe.size(_bytes(job, kind)) for kind in _KINDS),
            describe.size(_total(job)),
        )
        for job in largest[:count]
    ]
    output.table(("job", "#checkpoints", *(f"#{kind}" for kind in _KINDS), "#all"), rows)
    if len(largest) > count:
        output.text(f"Not shown: {len(largest) - count}; --jobs says how many are.")


def _bytes(job: JobDiskUsage, kind: str) -> int:
    number: int = getattr(job, f"{kind}_bytes")
    return number


def _total(job: JobDiskUsage) -> int:
    return sum(_bytes(job, kind) for kind in _KINDS)
