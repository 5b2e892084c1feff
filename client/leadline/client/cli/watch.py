"""`leadline watch`."""

import click

from leadline.client.cli.commands import Command
from leadline.client.cli.exit_codes import ExitCode
from leadline.client.cli.following import follow
from leadline.client.cli.options import Session, session_options
from leadline.client.cli.steering import is_sweep
from leadline.client.cli.sweep import follow_sweep
from leadline.client.cli.views import make_view


@click.command(
    cls=Command,
    examples=(
        "leadline watch jobs/phgcrktpjf",
        "leadline watch phgcrktpjf --after-sequence 12 --json",
    ),
)
@click.argument("job")
@click.option(
    "--after-sequence",
    type=click.IntRange(max=2**31 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="Begin after this event.",
)
@session_options
def watch(session: Session, *, job: str, after_sequence: int) -> ExitCode:
    """Follow a JOB, from its first epoch or any other.

    JOB is jobs/ID or the bare ID, or sweeps/ID. Its events are replayed and go on as they happen,
    also across a restart of the server. Ends as the job does: 1 if it fails, 5 if it is cancelled.
    """
    with session.client() as client:
        if is_sweep(job):
            return follow_sweep(session, client.sweep(job), after_sequence=after_sequence)
        handle = client.job(job)
        # First, so that a server that is not there is told at once, not waited for.
        view = make_view(session.output, epochs=handle.refresh().spec.epochs)
        return follow(session, handle, view, after_sequence=after_sequence)
