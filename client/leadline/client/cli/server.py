"""`serve`, `doctor` and `compact`, which need the server's packages on this machine."""

import dataclasses
import importlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import click

from leadline.client.cli import describe
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
    return int(server_module("leadline.server.main").main(list(arguments)))


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
    examination = server_module("leadline.server.doctor.examination")
    checks = list(_shown(output, examination.examine(arguments)))
    healthy = all(check["status"] != "failed" for check in checks)
    if as_json:
        output.json({"ok": healthy, "checks": checks})
    else:
        _show(output, checks, healthy=healthy)
    return ExitCode.SUCCESS if healthy else ExitCode.FAILED


@command(
    "leadline compact --data-dir /var/lib/leadline",
    context_settings=_FOR_THE_SERVER,
)
@click.option("--json", "as_json", is_flag=True, help="Print each model as one JSON line.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def compact(arguments: Sequence[str], *, as_json: bool) -> ExitCode:
    """Rewrite the checkpoints of older versions in less space, while no server runs.

    Takes the options of `leadline serve`, of which the data directory counts, and refuses one that
    a server uses. Classes stay as they are, and probabilities are rounded as those of new
    checkpoints are. Interrupt and repeat it as you like. Ends with 1 where a checkpoint is
    damaged; that one stays as it is. Needs the extra `server`.
    """
    output = Output(as_json=as_json)
    module = server_module("leadline.server.compact")
    saved, is_sound = 0, True
    try:
        for model in module.compact(arguments):
            saved += model.bytes_before - model.bytes_after
            is_sound = is_sound and not model.damaged
            _show_compacted(output, model)
    except module.StartupError as error:
        output.note(f"leadline compact: {error}")
        return ExitCode.FAILED
    output.text(f"{describe.size(saved)} are free again.")
    return ExitCode.SUCCESS if is_sound else ExitCode.FAILED


def _show_compacted(output: Output, model: Any) -> None:
    if output.as_json:
        output.json(dataclasses.asdict(model))
        return
    sizes = f"{describe.size(model.bytes_before)} -> {describe.size(model.bytes_after)}"
    output.text(f"{model.model}: {model.epochs} checkpoints, {sizes}")
    for damage in model.damaged:
        output.text(f"  {damage}")


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


def server_module(name: str) -> ModuleType:
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
