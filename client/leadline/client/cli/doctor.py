"""`leadline doctor`."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import click

from leadline.client.cli.commands import Command
from leadline.client.cli.exit_codes import ExitCode
from leadline.client.cli.output import Output
from leadline.client.cli.server_packages import server_module


@click.command(
    cls=Command,
    examples=(
        "leadline doctor",
        "leadline doctor --data-dir /var/lib/leadline --dataset pets=/srv/datasets/pets.tar",
        "leadline doctor --json | jq '.checks[] | select(.status != \"ok\")'",
    ),
    context_settings={
        "help_option_names": ["-h", "--help"],
        "ignore_unknown_options": True,
        "allow_extra_args": True,
    },
)
@click.option("--json", "as_json", is_flag=True, help="Print all findings as one JSON line.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def doctor(arguments: Sequence[str], *, as_json: bool) -> ExitCode:
    """Check what this machine can do for a server; ends with 1 where something is wrong.

    Takes the options of `leadline serve`, from the environment and --config too, and checks
    whether a server with them would work here: it starts none, calls none and leaves nothing
    behind. `leadline serve --help` shows these options. Needs 'leadline[server]'.
    """
    output = Output(as_json=as_json)
    examination = server_module("leadline.server.doctor.examination")
    found = list(_shown(output, examination.examine(arguments)))
    healthy = all(check["status"] != "failed" for check in found)
    if as_json:
        output.json({"ok": healthy, "checks": found})
    else:
        _show(output, found, healthy=healthy)
    return ExitCode.SUCCESS if healthy else ExitCode.FAILED


def _shown(output: Output, checks: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Shows on a terminal what was checked last while the next check runs."""
    live = output.console.is_terminal and not output.as_json
    with output.console.status("checking") if live else nullcontext() as status:
        for check in checks:
            if status is not None:
                status.update(f"checking ({check.name}: {check.status})")
            yield check.to_dict()


def _show(output: Output, found: Sequence[dict[str, Any]], *, healthy: bool) -> None:
    rows = [(one["name"], one["status"], one["value"]) for one in found]
    output.table(("check", "status", "found"), rows)
    for one in found:
        if one["advice"]:
            output.text(f"{one['name']}: {one['advice']}")
    output.text("Nothing is wrong here." if healthy else "A server would not work here as it is.")
