"""`leadline watch`, and how other commands follow a job or a sweep to its end."""

import click

from leadline.client import TrainingSweep, state_name
from leadline.client._cursor import AnyEvent
from leadline.client._sync.handle import Handle
from leadline.client._sync.stream import AnyResource
from leadline.client.cli.commands import command
from leadline.client.cli.control import find
from leadline.client.cli.exit_codes import ExitCode
from leadline.client.cli.options import Session, session_options
from leadline.client.cli.sweep_views import make_sweep_view
from leadline.client.cli.views import Outage, View, make_view

_EXIT_CODES = {
    "succeeded": ExitCode.SUCCESS,
    "failed": ExitCode.FAILED,
    "cancelled": ExitCode.JOB_CANCELLED,
}


@command(
    "leadline watch jobs/phgcrktpjf",
    "leadline watch phgcrktpjf --after-sequence 12 --json",
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
    """Follow a JOB, from its first event or a later one.

    JOB is jobs/ID, sweeps/ID, or only the ID. Prints past events first, then new ones as they
    happen, even across a restart of the server. The exit code is that of the job: 1 if it fails, 5
    if it is cancelled.
    """
    with session.client() as client:
        handle = find(client, job)
        if isinstance(handle, TrainingSweep):
            sweep_view = make_sweep_view(session.output)
            return follow(session, handle, sweep_view, after_sequence=after_sequence)
        # Called first, to fail at once if there is no server, instead of waiting for it.
        view = make_view(session.output, epochs=handle.refresh().spec.epochs)
        return follow(session, handle, view, after_sequence=after_sequence)


def finish_submission(
    session: Session, handle: Handle[AnyResource, AnyEvent], view: View[AnyEvent], *, detach: bool
) -> ExitCode:
    """Follows a submitted job or sweep, or with `detach` prints its name."""
    if not detach:
        return follow(session, handle, view)
    if session.output.as_json:
        session.output.message(handle.refresh())
    else:
        click.echo(handle.name)
        session.output.note(_detached(session, handle.name))
    return ExitCode.SUCCESS


def follow(
    session: Session,
    handle: Handle[AnyResource, AnyEvent],
    view: View[AnyEvent],
    *,
    after_sequence: int = 0,
) -> ExitCode:
    """Shows the events to the end; Ctrl-C only stops following, and prints how to continue."""
    try:
        return show_events(handle, view, after_sequence=after_sequence)
    except KeyboardInterrupt:
        session.output.note(_detached(session, handle.name))
        return ExitCode.INTERRUPTED


def show_events(
    handle: Handle[AnyResource, AnyEvent], view: View[AnyEvent], *, after_sequence: int = 0
) -> ExitCode:
    """Shows the events to the end, and returns the exit code."""
    outage = Outage(view.connection_lost)
    finished = None
    with view:
        for event in handle.events(
            after_sequence, view.progress_interval, on_reconnect=outage.begin
        ):
            outage.end()
            view.show(event)
            # Reads to the end of the stream: cancelling it at exit may hang the interpreter.
            if event.HasField("finished"):
                finished = event.finished
    if finished is not None:
        return _EXIT_CODES[state_name(finished)]
    # No event came after `after_sequence`, so the job or sweep had already ended.
    return _EXIT_CODES.get(state_name(handle.refresh()), ExitCode.SERVER_ERROR)


def _detached(session: Session, name: str) -> str:
    return (
        f"{name} continues. Watch it with `{session.command('watch', name)}`, "
        f"cancel it with `{session.command('cancel', name)}`."
    )
