"""`leadline sweep`."""

from typing import Any

import click

from leadline.client import MedianStoppingRule, SweepState, TrainingSweep
from leadline.client._requests import training_spec
from leadline.client.cli.commands import Command
from leadline.client.cli.exit_codes import ExitCode
from leadline.client.cli.following import detached
from leadline.client.cli.job_options import job_options
from leadline.client.cli.options import Session, common_spec_options, session_options
from leadline.client.cli.sweep_options import sweep_options
from leadline.client.cli.sweep_views import make_sweep_view

_EXIT_CODES = {
    SweepState.SWEEP_STATE_SUCCEEDED: ExitCode.SUCCESS,
    SweepState.SWEEP_STATE_FAILED: ExitCode.FAILED,
    SweepState.SWEEP_STATE_CANCELLED: ExitCode.JOB_CANCELLED,
}


@click.command(
    cls=Command,
    examples=(
        "leadline sweep --blocks 2,4,6,8,10 --batch-norm both --seeds 3",
        "leadline sweep --blocks 2,10 --axis residual=no,yes --axis learning_rate=0.01,0.1",
        "leadline sweep --dataset synthetic --epochs 20 --blocks 2,6 --early-stop --grace-epochs 3",
        "sweep=$(leadline sweep --dataset synthetic --seeds 5 --detach)",
    ),
)
@sweep_options
@common_spec_options
@job_options
@click.option("--detach", is_flag=True, help="Print the sweep's name and return at once.")
@click.option(
    "--request-id",
    metavar="UUID",
    help="Makes the command safe to repeat: the same id is the same sweep.",
)
@session_options
def sweep(
    session: Session,
    *,
    axes: dict[str, Any],
    rule: MedianStoppingRule | bool,
    fields: dict[str, Any],
    options: dict[str, Any],
    detach: bool,
    request_id: str | None,
) -> ExitCode:
    """Train a grid of models as one, and compare them.

    There is a job for each combination of --blocks, --batch-norm, --seeds and every --axis. What is
    not given takes the server's default. Ctrl-C leaves the sweep alone. Ends with 1 if a job fails
    and with 5 if the sweep is cancelled.
    """
    with session.client() as client:
        handle = client.train_sweep(
            axes,
            training_spec(None, **fields),
            median_stopping=rule,
            request_id=request_id,
            **options,
        )
        if not detach:
            return follow_sweep(session, handle)
        if session.output.as_json:
            session.output.message(handle.refresh())
        else:
            click.echo(handle.name)
            session.output.note(detached(session, handle.name))
        return ExitCode.SUCCESS


def follow_sweep(session: Session, handle: TrainingSweep, *, after_sequence: int = 0) -> ExitCode:
    """Shows the sweep's events to its end and returns what it came to.

    Ctrl-C leaves the sweep alone and says how to come back to it.
    """
    view = make_sweep_view(session.output)
    try:
        for event in handle.events(after_sequence, on_reconnect=view.reconnecting):
            view.show(event)
            if event.HasField("finished"):
                return _EXIT_CODES[event.finished.state]
    except KeyboardInterrupt:
        session.output.note(detached(session, handle.name))
        return ExitCode.INTERRUPTED
    finally:
        view.close()
    # Nothing came after `after_sequence`: the sweep had ended with it.
    return _EXIT_CODES.get(handle.refresh().state, ExitCode.SERVER_ERROR)
