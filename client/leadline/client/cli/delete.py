"""`leadline delete`."""

import sys

import click

from leadline.client.cli.commands import Command
from leadline.client.cli.options import Session, session_options
from leadline.client.cli.steering import is_sweep


@click.command(
    cls=Command,
    examples=(
        "leadline delete jobs/phgcrktpjf",
        "leadline delete --yes $(leadline jobs --state failed --json | jq -r .name)",
    ),
)
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@session_options
def delete(session: Session, *, jobs: tuple[str, ...], yes: bool) -> None:
    """Delete one JOB or several for good, with their events, models and checkpoints.

    JOB is jobs/ID or the bare ID, or sweeps/ID, of what has ended: cancel it first. The first job
    that cannot be deleted ends the command; those before it are gone, and were printed.
    """
    if not yes:
        _confirm(jobs)
    with session.client() as client:
        for name in jobs:
            subject = client.sweep(name) if is_sweep(name) else client.job(name)
            subject.delete()
            if session.output.as_json:
                session.output.json({"name": subject.name})
            else:
                session.output.text(f"{subject.name} is deleted")


def _confirm(jobs: tuple[str, ...]) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here: say --yes to delete for good")
    click.confirm(f"Delete {', '.join(jobs)} for good, models included?", abort=True, err=True)
