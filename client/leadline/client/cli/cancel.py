"""`leadline cancel`."""

import click

from leadline.client.cli import describe
from leadline.client.cli.commands import Command
from leadline.client.cli.options import Session, session_options


@click.command(
    cls=Command,
    examples=("leadline cancel jobs/phgcrktpjf",),
)
@click.argument("job")
@session_options
def cancel(session: Session, *, job: str) -> None:
    """Cancel a JOB; its completed epochs stay usable.

    JOB is jobs/ID or the bare ID. Cancelling a cancelled job succeeds and changes nothing.
    """
    with session.client() as client:
        cancelled = client.cancel_job(job)
    if session.output.as_json:
        session.output.message(cancelled)
    else:
        session.output.text(describe.standing(cancelled))
