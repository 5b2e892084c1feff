"""`leadline pause`."""

import click

from leadline.client.cli.commands import Command
from leadline.client.cli.options import Session, session_options
from leadline.client.cli.steering import is_sweep, show_standing


@click.command(
    cls=Command,
    examples=("leadline pause jobs/phgcrktpjf",),
)
@click.argument("job")
@session_options
def pause(session: Session, *, job: str) -> None:
    """Set a JOB aside, mid-epoch too; `leadline resume` has it go on.

    JOB is jobs/ID or the bare ID, or sweeps/ID for all jobs of a sweep. What its present epoch has
    done is lost, complete epochs are not. Pausing a paused job succeeds and changes nothing.
    """
    with session.client() as client:
        found = client.pause_sweep(job) if is_sweep(job) else client.pause_job(job)
    show_standing(session, found)
    if not session.output.as_json:
        session.output.note(f"It goes on with `{session.command('resume', found.name)}`.")
