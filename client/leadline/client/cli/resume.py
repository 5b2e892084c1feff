"""`leadline resume`."""

import click

from leadline.client.cli.commands import Command
from leadline.client.cli.options import Session, session_options
from leadline.client.cli.steering import is_sweep, show_standing


@click.command(
    cls=Command,
    examples=(
        "leadline resume phgcrktpjf",
        "leadline jobs --state paused --json | jq -r .name | xargs -n 1 leadline resume",
    ),
)
@click.argument("job")
@session_options
def resume(session: Session, *, job: str) -> None:
    """Have a paused JOB go on after its last complete epoch.

    JOB is jobs/ID or the bare ID, or sweeps/ID for all jobs of a sweep. It waits for a device like
    any other. Resuming a job that waits or runs succeeds and changes nothing.
    """
    with session.client() as client:
        found = client.resume_sweep(job) if is_sweep(job) else client.resume_job(job)
    show_standing(session, found)
