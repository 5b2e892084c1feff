"""`leadline serve` and `leadline doctor`, which need the server's packages on this machine."""

import importlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import click

from leadline.client.cli.commands import command
from leadline.client.cli.exit_codes import ExitCode
from leadline.client.cli.output import Output

# The server parses its own options.
_FOR_THE_SERVER = {"ignore_unknown_options": True, "allow_extra_args": True}


@command(
    "leadline serve",
    "leadline serve --port 50051 --data-dir /var/lib/leadline",
    add_help_option=False,
    context_settings=_FOR_THE_SERVER,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: Sequence[str]) -> int:
    """Start a server; `leadline serve --help` shows its options."""
    return int(_server_module("leadline.server.main").main(list(arguments)))


@command(
    "leadline doctor",
    "leadline doctor --data-dir /var/lib/leadline --dataset pets=/srv/datasets/pets.tar",
    "leadline doctor --json | jq '.checks[] | select(.status != \"ok\")'",
    context_settings=_FOR_THE_SERVER,
)
@click.option("--json", "as_json", is_flag=True, help="Print all findings as one JSON line.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def doctor(arguments: Sequence[str], *, as_json: bool) -> ExitCode:
    """Check whether this machine can run a server; the exit code is 1 if a check fails.

    Takes the options of `leadline serve`, also from the environment and --config, and checks
    whether a server with these options would work here. It starts and calls no server, and leaves
    no files. `leadline serve --help` shows the options. Needs the extra `server`.
    """
    output = Output(as_json=as_json)
    examination = _server_module("leadline.server.doctor.examination")
    checks = list(_shown(output, examination.examine(arguments)))
    healthy = all(check["status"] != "failed" for check in checks)
    if as_json:
        output.json({"ok": healthy, "checks": checks})
    else:
        _show(output, checks, healthy=healthy)
    return ExitCode.SUCCESS if healthy else ExitCode.FAILED


def _shown(output: Output, checks: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Shows the last check on a terminal while the next one runs."""
    live = output.console.is_terminal and not output.as_json
    with output.console.status("checking") if live else nullcontext() as status:
        for check in checks:
            if status is not None:
                status.update(f"checking ({check.name}: {check.status})")
            yield check.to_dict()


def _show(output: Output, checks: Sequence[dict[str, Any]], *, healthy: bool) -> None:
    rows = [(check["name"], check["status"], check["value"]) for check in checks]
    output.table(("check", "status", "found"), rows)
    for check in checks:
        if check["advice"]:
            output.text(f"{check['name']}: {check['advice']}")
    output.text("All checks passed." if healthy else "A server would not work here.")


def _server_module(name: str) -> ModuleType:
    """Loads a module of `leadline.server`, which other commands never import."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("leadline."):
            raise  # a bug, not a missing package
        raise click.ClickException(
            f"the server needs the package {error.name}: in a clone of the repository, run "
            "pip install '.[server]'"
        ) from error
