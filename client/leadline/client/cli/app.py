"""The `leadline` command: its subcommands, and their exit codes."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

import click

from leadline.client import LeadlineError
from leadline.client.cli.commands import Group
from leadline.client.cli.exit_codes import ExitCode, exit_code
from leadline.client.cli.failures import report_error, report_usage


class _Command(NamedTuple):
    """The module of a command, and its line in the list, which must not load it."""

    module: str
    help: str


COMMANDS = {
    "serve": _Command("server", "Start a server."),
    "doctor": _Command("server", "Check whether this machine can run a server."),
    "compact": _Command("server", "Rewrite the checkpoints of older versions in less space."),
    "tokens": _Command("tokens", "Create, list and revoke the tokens of a server's callers."),
    "audit": _Command("audit", "Show who did what on a server, from its audit log."),
    "train": _Command("train", "Train a model and watch it learn."),
    "watch": _Command("following", "Follow a job, from its first event or a later one."),
    "sweep": _Command("sweep", "Train a grid of models together, and compare them."),
    "sweeps": _Command("sweep", "List sweeps, or show one."),
    "jobs": _Command("jobs", "List training jobs."),
    "pause": _Command("control", "Pause a job, even within an epoch."),
    "resume": _Command("control", "Resume a paused job."),
    "cancel": _Command("control", "Cancel a job; its completed epochs stay usable."),
    "delete": _Command("control", "Delete one or more jobs permanently."),
    "models": _Command("models", "List trained models, or one model's epochs."),
    "predict": _Command("predict", "Classify any number of images."),
    "export": _Command("export", "Write a model as an ONNX file."),
    "misclassified": _Command("misclassified", "Show the images that a model misclassifies."),
    "confusion": _Command("confusion", "Show which classes a model confuses."),
    "compare": _Command("compare", "Compare two models image by image."),
    "label-errors": _Command("label_errors", "Show images whose labels are likely wrong."),
    "plot": _Command("plot", "Draw accuracy curves, confusion matrices and sweeps."),
    "report": _Command("report", "Write a job, a sweep or a comparison as one HTML page."),
    "usage": _Command("usage", "Show what uses the space on the server's disk."),
    "config": _Command("config", "Manage profiles: servers with their credentials."),
    "quota": _Command("quota", "Show what you may use, and what you use."),
    "health": _Command("status", "Check that a server accepts calls."),
    "demo": _Command("demo", "Start a server, train, predict and inspect, in a minute."),
    "version": _Command("status", "Print the version."),
}


class _BrokenPipe(Exception):  # noqa: N818 - not an error: the reader has gone
    """Hides a broken pipe from click, whose exit code would mean a failed job."""


class LazyGroup(Group):
    """Loads a command when it runs, not when it is listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order in which a new user needs them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command with this name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"leadline.client.cli.{COMMANDS[cmd_name].module}")
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)  # noqa: S101 - a slip in the table above
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without loading them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the exit codes."""
        del ctx
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), code.meaning) for code in ExitCode])

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _BrokenPipe from error


@click.group(cls=LazyGroup, name="leadline")
@click.version_option(None, "--version", package_name="leadline", prog_name="leadline")
def leadline() -> None:
    """Train image classifiers, watch them learn, and see what they get wrong.

    Commands call the server at --target, by default that of the variable LEADLINE_TARGET or of the
    profile in use (see `leadline config`), else 127.0.0.1:50051. --json prints each message as one
    JSON line.

    Try `leadline demo`, which needs no server and no network.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in arguments
    try:
        _check_text(arguments)
        code = leadline.main(arguments, prog_name="leadline", standalone_mode=False)
        sys.stdout.flush()  # detects a closed pipe here
    except click.ClickException as error:
        report_usage(error, as_json=as_json)
        return ExitCode.USAGE
    except click.Abort:
        return ExitCode.INTERRUPTED
    except (_BrokenPipe, BrokenPipeError):
        # Otherwise Python reports the failed write at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.BROKEN_PIPE
    except (LeadlineError, OSError) as error:
        report_error(error, as_json=as_json)
        return exit_code(error)
    return code if isinstance(code, int) else ExitCode.SUCCESS


def _check_text(arguments: Sequence[str]) -> None:
    for number, argument in enumerate(arguments, start=1):
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise click.UsageError(f"argument {number}, {argument!r}, is not UTF-8") from error
