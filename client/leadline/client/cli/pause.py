"""`leadline pause`."""

import click

from leadline.client.cli import describe
from leadline.client.cli.commands import Command
from leadline.client.cli.options import Session, session_options


@click.command(
    cls=Command,
    examples=("leadline pause jobs/phgcrktpjf",),
)
@click.argument("job")
@session_options
def pause(session: Session, *, job: str) -> None:
    """Set a JOB aside, mid-epoch too; `leadline resume` has it go on.

    JOB is jobs/ID or the bare ID. What its present epoch has done is lost, complete epochs are
    not. Pausing a paused job succeeds and changes nothing.
    """
    with session.client() as client:
        paused = client.pause_job(job)
    if session.output.as_json:
        session.output.message(paused)
    else:
        session.output.text(describe.standing(paused))
        session.output.note(f"It goes on with `{session.command('resume', paused.name)}`.")
