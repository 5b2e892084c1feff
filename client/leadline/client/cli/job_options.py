"""The options of `leadline train` that say how a job is scheduled and kept."""

import functools
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import click

_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_EVERY = re.compile(r"every-(\d+)")
_POLICIES = {"all": "all", "best-and-last": "best_and_last"}


def _duration(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> timedelta | None:
    """A length of time: "90s", "10m", "1h30m", "1d"."""
    del context, parameter
    if value is None:
        return None
    parts = _PART.findall(value)
    if not parts or _PART.sub("", value):
        raise click.BadParameter(f"{value!r} is no length of time such as 90s, 10m, 2h or 1d")
    try:
        lengths = [timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts]
        return sum(lengths, timedelta())
    except OverflowError:
        raise click.BadParameter(f"{value!r} is longer than time is reckoned") from None


def _retention(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | int | None:
    """What the client's `train` takes, for "all", "best-and-last" or "every-N"."""
    del context, parameter
    if value is None:
        return None
    every = _EVERY.fullmatch(value)
    if every:
        return int(every.group(1))
    if value not in _POLICIES:
        raise click.BadParameter(f"{value!r} is none of all, best-and-last, every-N")
    return _POLICIES[value]


_OPTIONS = (
    click.option(
        "--priority",
        type=int,
        metavar="N",
        help="Of waiting jobs the highest starts first, -100 to 100.  [server's: 0]",
    ),
    click.option(
        "--time-limit",
        callback=_duration,
        metavar="DURATION",
        help="Fail unless complete so long after the submission: 90s, 10m, 2h, 1d.  [none]",
    ),
    click.option(
        "--retention",
        callback=_retention,
        metavar="all|best-and-last|every-N",
        help="The checkpoints to keep; the best and the last always are.  [server's: all]",
    ),
)


def job_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds an option for each field of `JobOptions`; the command receives them as `options`."""

    @functools.wraps(function)
    def with_options(*, priority: Any, time_limit: Any, retention: Any, **others: Any) -> Any:
        options = {"priority": priority, "time_limit": time_limit, "retention": retention}
        return function(options=options, **others)

    for option in reversed(_OPTIONS):
        with_options = option(with_options)
    return with_options
