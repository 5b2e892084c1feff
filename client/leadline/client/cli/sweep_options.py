"""The options of `leadline sweep` that say in what its jobs differ."""

import functools
from collections.abc import Callable
from typing import Any

import click

from leadline.client import MedianStoppingRule

MAX_SEEDS = 1_000
"""As many jobs as a sweep may have."""

_BATCH_NORM = {"yes": [True], "no": [False], "both": [False, True]}


def _values(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> list[bool | float | str] | None:
    """Values of one field: "2,4,6"."""
    del context, parameter
    return None if value is None else [_typed(one) for one in value.split(",")]


def _axes(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> dict[str, list[bool | float | str]]:
    """Fields and their values: "learning_rate=0.01,0.1"."""
    del context, parameter
    axes: dict[str, list[bool | float | str]] = {}
    for one in value:
        field, equals, values = one.partition("=")
        field = field.strip().replace("-", "_")
        if not equals or not field:
            raise click.BadParameter(f"{one!r} is no axis such as learning_rate=0.01,0.1")
        if field in axes:
            raise click.BadParameter(f"{field} is given twice: name all its values at once")
        axes[field] = [_typed(text) for text in values.split(",")]
    return axes


def _typed(text: str) -> bool | float | str:
    text = text.strip()
    if text.lower() in {"true", "yes", "false", "no"}:
        return text.lower() in {"true", "yes"}
    try:
        return float(text)
    except ValueError:
        return text


def _merged(
    own: dict[str, list[Any] | None], axes: dict[str, list[bool | float | str]]
) -> dict[str, list[Any]]:
    """The axes of options of their own, and those of --axis; seeds come last."""
    given = {field: values for field, values in own.items() if values is not None}
    for field in axes:
        if field in given:
            raise click.UsageError(f"{field} is given twice: once in --axis")
    merged = given | axes
    seeds = {"seed": merged.pop("seed")} if "seed" in merged else {}
    return merged | seeds


_OPTIONS = (
    click.option(
        "--blocks", callback=_values, metavar="N,N,...", help="Depths in blocks, such as 2,4,6."
    ),
    click.option(
        "--block-convolutions",
        callback=_values,
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
        callback=_axes,
        metavar="FIELD=V,V,...",
        help="Values of any other field of the spec; may be given several times.",
    ),
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
)


def sweep_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the axes and the rule; the command receives them as `axes` and `rule`."""

    @functools.wraps(function)
    def with_options(
        *,
        blocks: list[bool | float | str] | None,
        block_convolutions: list[bool | float | str] | None,
        batch_norm: str | None,
        seeds: int | None,
        axes: dict[str, list[bool | float | str]],
        early_stop: bool,
        grace_epochs: int | None,
        min_completed_jobs: int | None,
        **others: Any,
    ) -> Any:
        own = {
            "blocks": blocks,
            "block_convolutions": block_convolutions,
            "batch_norm": None if batch_norm is None else _BATCH_NORM[batch_norm],
            "seed": None if seeds is None else list(range(seeds)),
        }
        named = _merged(own, axes)
        if not early_stop and (grace_epochs, min_completed_jobs) != (None, None):
            raise click.UsageError("--grace-epochs and --min-completed-jobs need --early-stop")
        rule = MedianStoppingRule(grace_epochs=grace_epochs, min_completed_jobs=min_completed_jobs)
        return function(
            axes=named,
            rule=rule if early_stop else False,
            **others,
        )

    for option in reversed(_OPTIONS):
        with_options = option(with_options)
    return with_options
