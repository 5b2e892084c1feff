"""`leadline cancel`."""

import click

from leadline.client.cli.commands import Command
from leadline.client.cli.options import Session, session_options
from leadline.client.cli.steering import is_sweep, show_standing


@click.command(
    cls=Command,
    examples=("leadline cancel jobs/phgcrktpjf",),
)
@click.argument("job")
@session_options
def cancel(session: Session, *, job: str) -> None:
    """Cancel a JOB; its completed epochs stay usable.

    JOB is jobs/ID or the bare ID, or sweeps/ID for all jobs of a sweep. Cancelling a cancelled job
    succeeds and changes nothing.
    """
    with session.client() as client:
        found = client.cancel_sweep(job) if is_sweep(job) else client.cancel_job(job)
    show_standing(session, found)
