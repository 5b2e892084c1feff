"""`leadline sweep` and `leadline sweeps`."""

from collections.abc import Sequence
from typing import Any

import click

from leadline.client import Job, MedianStoppingRule, Sweep
from leadline.client.cli import describe, describe_sweep
from leadline.client.cli.commands import command
from leadline.client.cli.exit_codes import ExitCode
from leadline.client.cli.following import finish_submission
from leadline.client.cli.job_options import job_options, submission_options
from leadline.client.cli.options import (
    Session,
    common_spec_options,
    owner_option,
    session_options,
)
from leadline.client.cli.output import Output
from leadline.client.cli.sweep_options import sweep_options
from leadline.client.cli.sweep_views import make_sweep_view, show_results


@command(
    "leadline sweep --blocks 2,4,6,8,10 --batch-norm both --seeds 3",
    "leadline sweep --blocks 2,10 --axis residual=no,yes --axis learning_rate=0.01,0.1",
    "leadline sweep --dataset synthetic --epochs 20 --blocks 2,6 --early-stop --grace-epochs 3",
    "sweep=$(leadline sweep --dataset synthetic --seeds 5 --detach)",
)
@sweep_options
@common_spec_options
@job_options
@submission_options("sweep")
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
    """Train a grid of models together, and compare them.

    There is a job for each combination of --blocks, --batch-norm, --seeds and every --axis. Options
    that are not given take the server's defaults. Ctrl-C does not stop the sweep. The exit code is
    1 if a job fails and 5 if the sweep is cancelled.
    """
    with session.client() as client:
        handle = client.train_sweep(
            axes, median_stopping=rule, request_id=request_id, **fields, **options
        )
        return finish_submission(session, handle, make_sweep_view(session.output), detach=detach)


@command(
    "leadline sweeps",
    "leadline sweeps phgcrktpjf",
    "leadline sweeps --json | jq -r .name",
)
@click.argument("sweep", required=False)
@owner_option("sweeps")
@session_options
def sweeps(session: Session, *, sweep: str | None, owner: str | None) -> None:
    """List sweeps, the newest first, or show one SWEEP: its jobs, its table, its best depths."""
    with session.client() as client:
        listed = list(client.sweeps(owner=owner)) if sweep is None else [client.get_sweep(sweep)]
        failed = [] if sweep is None else list(client.jobs(sweep=sweep, states=["failed"]))
    if session.output.as_json:
        for resource in listed:
            session.output.message(resource)
    elif sweep is None:
        session.output.table(*describe_sweep.sweep_list(listed))
    else:
        _show(session.output, listed[0], failed)


def _show(output: Output, sweep: Sweep, failed: Sequence[Job]) -> None:
    output.text(describe_sweep.standing(sweep))
    output.table(*describe_sweep.job_list(sweep))
    for job in failed:
        output.text(describe.standing(job))
    show_results(output, sweep.table)
