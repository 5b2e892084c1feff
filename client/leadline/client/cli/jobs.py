"""`leadline jobs`."""

import click

from leadline.client import Client, Job, JobState
from leadline.client.cli import describe
from leadline.client.cli.commands import Command
from leadline.client.cli.diagnosis import show_diagnosis
from leadline.client.cli.options import Session, session_options

_STATES = [
    name.removeprefix("JOB_STATE_").lower()
    for name in JobState.keys()  # noqa: SIM118 - protobuf's enum is no mapping
    if name != "JOB_STATE_UNSPECIFIED"
]


@click.command(
    cls=Command,
    examples=(
        "leadline jobs",
        "leadline jobs --state running --state queued",
        "leadline jobs --json | jq -r .name",
        "leadline jobs JOB --diagnosis",
    ),
)
@click.argument("job", required=False)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(_STATES),
    help="Only jobs in this state; may be given several times.",
)
@click.option(
    "--diagnosis",
    is_flag=True,
    help="Instead: how activations and gradients pass the blocks of JOB, epoch by epoch.",
)
@session_options
def jobs(session: Session, *, job: str | None, states: tuple[str, ...], diagnosis: bool) -> None:
    """List training jobs, the newest first, or one JOB."""
    if diagnosis and job is None:
        raise click.UsageError("--diagnosis needs the JOB that it is of")
    with session.client() as client:
        if diagnosis and job is not None:
            show_diagnosis(client, job, session.output)
            return
        found = _found(client, job, states)
        if session.output.as_json:
            for one in found:
                session.output.message(one)
        else:
            session.output.table(*describe.job_table(found))


def _found(client: Client, job: str | None, states: tuple[str, ...]) -> list[Job]:
    if job is not None:
        return [client.get_job(job)]
    return list(client.jobs(states=states))
