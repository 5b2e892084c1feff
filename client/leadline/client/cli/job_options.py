"""The options of `train` and `sweep` for scheduling, checkpoints and submission."""

import re
from collections.abc import Callable
from datetime import timedelta

import click

from leadline.client.cli.commands import checked
from leadline.client.cli.options import AnyCommand, option_group

_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_EVERY = re.compile(r"every-(\d+)")


def duration(value: str) -> timedelta:
    """Parses a duration: "90s", "10m", "1h30m", "1d".

    Raises:
        click.BadParameter: it is malformed.
    """
    parts = _PART.findall(value)
    if not parts or _PART.sub("", value):
        raise click.BadParameter(f"{value!r} is not a duration such as 90s, 10m, 2h or 1d")
    try:
        lengths = [timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts]
        return sum(lengths, timedelta())
    except OverflowError:
        raise click.BadParameter(f"{value!r} is too long") from None


def _retention(value: str) -> str | int:
    """Converts "all", "best-and-last" or "every-N" to an argument of the client's `train`."""
    every = _EVERY.fullmatch(value)
    if every:
        return int(every.group(1))
    if value not in ("all", "best-and-last"):
        raise click.BadParameter(f"{value!r} is not one of all, best-and-last, every-N")
    return value.replace("-", "_")


job_options = option_group(
    "options",
    ("priority", "time_limit", "retention"),
    click.option(
        "--priority",
        type=int,
        metavar="N",
        help="Higher priority starts first, -100 to 100.  [server's: 0]",
    ),
    click.option(
        "--time-limit",
        callback=checked(duration),
        metavar="DURATION",
        help="Fail if not complete within this time: 90s, 10m, 2h, 1d.  [none]",
    ),
    click.option(
        "--retention",
        callback=checked(_retention),
        metavar="all|best-and-last|every-N",
        help="The checkpoints to keep; the best and the last always are.  [server's: all]",
    ),
)
"""Adds an option for each field of `JobOptions`; the command receives them as `options`."""


def submission_options(kind: str) -> Callable[[AnyCommand], AnyCommand]:
    """Adds --detach and --request-id for the submission of a "job" or a "sweep"."""

    def decorate(function: AnyCommand) -> AnyCommand:
        request_id = click.option(
            "--request-id",
            metavar="UUID",
            help=f"Makes the command safe to repeat: the same id is the same {kind}.",
        )
        detach = click.option(
            "--detach", is_flag=True, help=f"Print the {kind}'s name and return at once."
        )
        return detach(request_id(function))

    return decorate
