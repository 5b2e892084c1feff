"""The options of `leadline sweep` for its axes and its stopping rule."""

from typing import TypeAlias

import click

from leadline.client import MedianStoppingRule
from leadline.client.cli.commands import checked
from leadline.client.cli.options import AnyCommand, option_group

AxisValues: TypeAlias = list[bool | float | str]
Axes: TypeAlias = dict[str, AxisValues]
"""The values of each field in which the jobs differ."""

MAX_SEEDS = 1_000
"""The most jobs of a sweep."""

_BATCH_NORM: dict[str, AxisValues] = {"yes": [True], "no": [False], "both": [False, True]}


def _values(text: str) -> AxisValues:
    """Parses the values of one field: "2,4,6"."""
    return [_typed(value) for value in text.split(",")]


def _axes(given: tuple[str, ...]) -> Axes:
    """Parses fields and their values: "learning_rate=0.01,0.1"."""
    axes: Axes = {}
    for axis in given:
        field, equals, values = axis.partition("=")
        field = field.strip().replace("-", "_")
        if not equals or not field:
            raise click.BadParameter(f"{axis!r} is not an axis such as learning_rate=0.01,0.1")
        if field in axes:
            raise click.BadParameter(f"{field} is given twice: name all its values at once")
        axes[field] = _values(values)
    return axes


def _typed(text: str) -> bool | float | str:
    text = text.strip()
    if text.lower() in {"true", "yes", "false", "no"}:
        return text.lower() in {"true", "yes"}
    try:
        return float(text)
    except ValueError:
        return text


def _rule(
    *, early_stop: bool, grace_epochs: int | None, min_completed_jobs: int | None
) -> MedianStoppingRule | bool:
    if early_stop:
        return MedianStoppingRule(grace_epochs=grace_epochs, min_completed_jobs=min_completed_jobs)
    if (grace_epochs, min_completed_jobs) != (None, None):
        raise click.UsageError("--grace-epochs and --min-completed-jobs need --early-stop")
    return False


def _merged(
    *, seeds: int | None, batch_norm: str | None, axes: Axes, **listed: AxisValues | None
) -> Axes:
    """Merges the axes of all options; seeds come last."""
    given: dict[str, AxisValues | None] = {
        **listed,
        "batch_norm": None if batch_norm is None else _BATCH_NORM[batch_norm],
        "seed": None if seeds is None else list(range(seeds)),
    }
    merged = {field: values for field, values in given.items() if values is not None}
    for field in axes:
        if field in merged:
            raise click.UsageError(f"{field} is given twice: once in --axis")
    merged |= axes
    if "seed" in merged:
        merged["seed"] = merged.pop("seed")
    return merged


_axis_options = option_group(
    "axes",
    ("blocks", "block_convolutions", "batch_norm", "seeds", "axes"),
    click.option(
        "--blocks",
        callback=checked(_values),
        metavar="N,N,...",
        help="Depths in blocks, such as 2,4,6.",
    ),
    click.option(
        "--block-convolutions",
        callback=checked(_values),
        metavar="N,N,...",
        help="Convolutions of each block: 1, 2 or 1,2.  [server's: 1]",
    ),
    click.option(
        "--batch-norm",
        type=click.Choice(list(_BATCH_NORM)),
        help="Whether a batch norm follows each convolution in a block, or both.  [server's: no]",
    ),
    click.option(
        "--seeds",
        type=click.IntRange(min=1, max=MAX_SEEDS),
        metavar="N",
        help="Seeds of each variant: 0 to N-1.",
    ),
    click.option(
        "--axis",
        "axes",
        multiple=True,
        callback=checked(_axes),
        metavar="FIELD=V,V,...",
        help="Values of any other field of the spec; may be given several times.",
    ),
    build=_merged,
)

_rule_options = option_group(
    "rule",
    ("early_stop", "grace_epochs", "min_completed_jobs"),
    click.option(
        "--early-stop", is_flag=True, help="Stop hopeless jobs, by the median stopping rule."
    ),
    click.option(
        "--grace-epochs", type=int, metavar="N", help="Epochs before that.  [server's: 5]"
    ),
    click.option(
        "--min-completed-jobs",
        type=int,
        metavar="N",
        help="Jobs that must be complete before that.  [server's: 3]",
    ),
    build=_rule,
)


def sweep_options(function: AnyCommand) -> AnyCommand:
    """Adds options for the axes and the rule; the command receives `axes` and `rule`."""
    return _axis_options(_rule_options(function))
