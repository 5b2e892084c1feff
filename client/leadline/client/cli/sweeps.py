"""`leadline sweeps`."""

import click

from leadline.client import Sweep
from leadline.client.cli import describe_sweep
from leadline.client.cli.commands import Command
from leadline.client.cli.options import Session, session_options
from leadline.client.cli.output import Output


@click.command(
    cls=Command,
    examples=(
        "leadline sweeps",
        "leadline sweeps phgcrktpjf",
        "leadline sweeps --json | jq -r .name",
    ),
)
@click.argument("sweep", required=False)
@session_options
def sweeps(session: Session, *, sweep: str | None) -> None:
    """List sweeps, the newest first, or show one SWEEP: its jobs, its table, its best depths."""
    with session.client() as client:
        found = list(client.sweeps()) if sweep is None else [client.get_sweep(sweep)]
    if session.output.as_json:
        for one in found:
            session.output.message(one)
    elif sweep is None:
        session.output.table(*describe_sweep.sweep_list(found))
    else:
        _show(session.output, found[0])


def _show(output: Output, sweep: Sweep) -> None:
    output.text(describe_sweep.standing(sweep))
    output.table(*describe_sweep.job_list(sweep))
    output.table(*describe_sweep.variant_table(sweep.table))
    for one in sweep.table.best_depths:
        output.text(describe_sweep.best_depth(one))
