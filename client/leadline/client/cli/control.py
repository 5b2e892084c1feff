"""`leadline pause`, `resume`, `cancel` and `delete`, for a job or all jobs of a sweep."""

import sys
from contextlib import suppress

import click

from leadline.client import Client, Job, NotFoundError, Sweep, TrainingJob, TrainingSweep
from leadline.client.cli import describe, describe_sweep
from leadline.client.cli.commands import command
from leadline.client.cli.options import Session, session_options


def find(client: Client, name: str) -> TrainingJob | TrainingSweep:
    """The handle for jobs/ID, sweeps/ID, or an ID, which may be a job's or else a sweep's.

    Raises:
        NotFoundError: neither a job nor a sweep has the ID.
    """
    if name.startswith("sweeps/"):
        return client.sweep(name)
    job = client.job(name)
    if name == job.name:
        return job
    for handle in (job, client.sweep(name)):
        with suppress(NotFoundError):
            handle.refresh()
            return handle
    return job


@command("leadline pause jobs/phgcrktpjf")
@click.argument("job")
@session_options
def pause(session: Session, *, job: str) -> None:
    """Pause a JOB, even within an epoch; `leadline resume` continues it.

    JOB is jobs/ID, sweeps/ID for all jobs of a sweep, or only the ID. Complete epochs are kept,
    but not the epoch in progress. Pausing a paused job succeeds and changes nothing.
    """
    with session.client() as client:
        paused = find(client, job).pause()
    _show(session, paused)
    if not session.output.as_json:
        session.output.note(f"Continue with `{session.command('resume', paused.name)}`.")


@command(
    "leadline resume phgcrktpjf",
    "leadline jobs --state paused --json | jq -r .name | xargs -n 1 leadline resume",
)
@click.argument("job")
@session_options
def resume(session: Session, *, job: str) -> None:
    """Resume a paused JOB after its last complete epoch.

    JOB is jobs/ID, sweeps/ID for all jobs of a sweep, or only the ID. It waits in the queue like
    any other job. Resuming a queued or running job succeeds and changes nothing.
    """
    with session.client() as client:
        _show(session, find(client, job).resume())


@command("leadline cancel jobs/phgcrktpjf")
@click.argument("job")
@session_options
def cancel(session: Session, *, job: str) -> None:
    """Cancel a JOB; its completed epochs stay usable.

    JOB is jobs/ID, sweeps/ID for all jobs of a sweep, or only the ID. Cancelling a cancelled job
    succeeds and changes nothing.
    """
    with session.client() as client:
        _show(session, find(client, job).cancel())


@command(
    "leadline delete jobs/phgcrktpjf",
    "leadline delete --yes $(leadline jobs --state failed --json | jq -r .name)",
)
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@click.option("--yes", is_flag=True, help="Do not ask; required without a terminal.")
@session_options
def delete(session: Session, *, jobs: tuple[str, ...], yes: bool) -> None:
    """Delete one or more JOBs permanently, with their events, models and checkpoints.

    JOB is jobs/ID, sweeps/ID, or only the ID. It must have ended: cancel it first. The command
    stops at the first job that it cannot delete, after printing the deleted ones.
    """
    if not yes:
        _confirm(jobs)
    with session.client() as client:
        for name in jobs:
            handle = find(client, name)
            handle.delete()
            if session.output.as_json:
                session.output.json({"name": handle.name})
            else:
                session.output.text(f"{handle.name} is deleted")


def _confirm(jobs: tuple[str, ...]) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("no terminal to ask for confirmation: add --yes")
    click.confirm(f"Delete {', '.join(jobs)} permanently, including models?", abort=True, err=True)


def _show(session: Session, resource: Job | Sweep) -> None:
    if isinstance(resource, Sweep):
        session.output.show(resource, describe_sweep.standing(resource))
    else:
        session.output.show(resource, describe.standing(resource))
