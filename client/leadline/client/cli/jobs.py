"""`leadline jobs`."""

from collections.abc import Iterator, Sequence

import click

from leadline.client import BlockDiagnosis, Client, Job, JobEvent, JobState
from leadline.client._messages import enum_numbers
from leadline.client.cli import describe
from leadline.client.cli.commands import command
from leadline.client.cli.options import Session, owner_option, session_options
from leadline.client.cli.output import Output

_MEASURED = {
    "activation_std": "standard deviation of the activations after each block",
    "gradient_norm": "L2 norm of the gradient at each block",
}


@command(
    "leadline jobs",
    "leadline jobs --state running --state queued",
    "leadline jobs --owner me --json | jq -r .name",
    "leadline jobs JOB --diagnosis",
)
@click.argument("job", required=False)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(list(enum_numbers(JobState.DESCRIPTOR))),
    help="Only jobs in this state; may be given several times.",
)
@owner_option("jobs")
@click.option(
    "--diagnosis",
    is_flag=True,
    help="Instead: activations and gradients of each block of JOB, epoch by epoch.",
)
@session_options
def jobs(
    session: Session,
    *,
    job: str | None,
    states: tuple[str, ...],
    owner: str | None,
    diagnosis: bool,
) -> None:
    """List training jobs, the newest first, or one JOB."""
    if diagnosis and job is None:
        raise click.UsageError("--diagnosis needs a JOB")
    with session.client() as client:
        if job is None:
            _show_jobs(session.output, list(client.jobs(states=states, owner=owner)))
        elif diagnosis:
            _show_diagnosis(client, job, session.output)
        else:
            _show_jobs(session.output, [client.get_job(job)])


def _show_jobs(output: Output, listed: list[Job]) -> None:
    if output.as_json:
        for job in listed:
            output.message(job)
        return
    output.table(*describe.table(describe.JOB_COLUMNS, listed))
    if len(listed) == 1 and (reason := describe.reason(listed[0])):
        output.text(reason)


def _show_diagnosis(client: Client, name: str, output: Output) -> None:
    """Prints the measurements of a job's blocks so far.

    Prints two tables, with a row for the start (epoch 0) and for each epoch. With
    `--json`, prints the events.
    """
    events = list(_diagnosed(client, name))
    if output.as_json:
        for event in events:
            output.message(event)
        return
    if not events:
        output.note(f"{name} has no diagnosis: train with --diagnostics")
        return
    for field, title in _MEASURED.items():
        output.text(title)
        output.table(*_table(events, field))


def _diagnosed(client: Client, name: str) -> Iterator[JobEvent]:
    job = client.job(name)
    newest = job.refresh().latest_sequence
    for event in job.events():
        if _diagnosis(event):
            yield event
        if event.sequence >= newest:  # do not wait for later events
            return


def _diagnosis(event: JobEvent) -> Sequence[BlockDiagnosis]:
    return event.epoch.diagnosis or event.started.diagnosis


def _table(events: Sequence[JobEvent], field: str) -> tuple[list[str], list[list[str]]]:
    cells = [
        [str(event.epoch.epoch), *(f"{getattr(block, field):.2e}" for block in _diagnosis(event))]
        for event in events
    ]
    blocks = range(1, len(cells[0]) - 1)
    return ["#epoch", "#head", *(f"#block {block}" for block in blocks)], cells
