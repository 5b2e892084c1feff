"""The `leadline` command: which commands there are, and how any of them ends."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

import click

from leadline.client import LeadlineError
from leadline.client.cli.exit_codes import MEANINGS, ExitCode, exit_code
from leadline.client.cli.failures import report_error, report_usage


class _Command(NamedTuple):
    """Where a command is, and the line that lists it: loading it to ask would take time."""

    module: str
    help: str


COMMANDS = {
    "serve": _Command("serve", "Start a server."),
    "doctor": _Command("doctor", "Check what this machine can do for a server."),
    "train": _Command("train", "Train a model and watch it learn."),
    "watch": _Command("watch", "Follow a job, from its first epoch or any other."),
    "sweep": _Command("sweep", "Train a grid of models as one, and compare them."),
    "sweeps": _Command("sweeps", "List sweeps, or show one."),
    "jobs": _Command("jobs", "List training jobs."),
    "pause": _Command("pause", "Set a job aside, mid-epoch too."),
    "resume": _Command("resume", "Have a paused job go on."),
    "cancel": _Command("cancel", "Cancel a job; its completed epochs stay usable."),
    "delete": _Command("delete", "Delete one job or several for good."),
    "models": _Command("models", "List trained models, or one model's epochs."),
    "predict": _Command("predict", "Say what images show."),
    "misclassified": _Command("misclassified", "Show the images that a model gets wrong."),
    "confusion": _Command("confusion", "Show which classes a model takes for which."),
    "compare": _Command("compare", "Compare two models image by image."),
    "mislabeled": _Command("mislabeled", "Show images whose labels are likely to be wrong."),
    "plot": _Command("plot", "Draw accuracy curves, confusion matrices and sweeps."),
    "report": _Command("report", "Write a job, a sweep or a comparison as one HTML page."),
    "health": _Command("health", "Check that a server serves."),
    "demo": _Command("demo", "Start a server, train, predict and look, in about a minute."),
    "version": _Command("version", "Print the version."),
}


class _BrokenPipe(Exception):  # noqa: N818 - no error: the reader has had enough
    """Keeps a broken pipe from click, whose exit code for it is that of a failed job."""


class LazyGroup(click.Group):
    """Loads a command when it is run, not when it is listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which one comes to need them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"leadline.client.cli.{COMMANDS[cmd_name].module}")
        command = getattr(module, cmd_name)
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
            formatter.write_dl([(str(int(code)), meaning) for code, meaning in MEANINGS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _BrokenPipe from error


@click.group(
    cls=LazyGroup, name="leadline", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(None, "--version", package_name="leadline", prog_name="leadline")
def leadline() -> None:
    """Train image classifiers, watch them learn, and see what they get wrong.

    A command talks to the server at --target, which is 127.0.0.1:50051 unless the variable
    LEADLINE_TARGET says otherwise. With --json it prints each message as one JSON line.

    Try `leadline demo`, which needs neither a server nor a network.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    # gRPC's own remarks, as on a server that says goodbye, would land between our lines.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in arguments
    try:
        _check_text(arguments)
        code = leadline.main(arguments, prog_name="leadline", standalone_mode=False)
        sys.stdout.flush()  # so that a reader who is gone is noticed here
    except click.ClickException as error:
        report_usage(error, as_json=as_json)
        return ExitCode.USAGE
    except click.Abort:
        return ExitCode.INTERRUPTED
    except (_BrokenPipe, BrokenPipeError):
        _silence_stdout()
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


def _silence_stdout() -> None:
    # Or else Python complains about what it could not write when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
