"""The variants of a sweep as lines of accuracy over depth."""

from typing import Any, NamedTuple

import click
from google.protobuf.struct_pb2 import Struct

from leadline.client import Sweep, SweepVariant
from leadline.client.cli import describe, describe_sweep


class DepthLine(NamedTuple):
    """The test accuracies of one combination of the other axes, by ascending depth.

    Accuracies are of each job's best epoch, in percent, over the seeds.

    Attributes:
        label: the combination in words.
        batch_norm: whether the networks have batch norm, which determines the line's colour.
        blocks: the depths.
        mean: the mean accuracy at each depth.
        lowest: the accuracy of the worst seed at each depth.
        highest: the accuracy of the best seed at each depth.
    """

    label: str
    batch_norm: bool
    blocks: list[int]
    mean: list[float]
    lowest: list[float]
    highest: list[float]


def depth_lines(sweep: Sweep) -> list[DepthLine]:
    """A line for each combination of the axes except depth and seed, in the order of the grid.

    Omits variants without a completed epoch.

    Raises:
        click.ClickException: depth is not an axis of the sweep, or no variant has
            completed an epoch.
    """
    if all(axis.field != "blocks" for axis in sweep.axes):
        axes = ", ".join(axis.field for axis in sweep.axes)
        raise click.ClickException(
            f"{sweep.name} has no axis blocks, only {axes}: so it has no depths to draw"
        )
    lines: dict[str, list[SweepVariant]] = {}
    for variant in sweep.table.variants:
        if variant.best_test_accuracy.count:
            lines.setdefault(_label(sweep, variant), []).append(variant)
    if not lines:
        raise click.ClickException(f"no job of {sweep.name} has completed an epoch")
    return [_line(sweep, label, variants) for label, variants in lines.items()]


def _line(sweep: Sweep, label: str, variants: list[SweepVariant]) -> DepthLine:
    ascending = sorted(variants, key=_blocks)
    accuracies = [variant.best_test_accuracy for variant in ascending]
    return DepthLine(
        label,
        _batch_norm(sweep, variants[0]),
        [_blocks(variant) for variant in ascending],
        [100 * accuracy.mean for accuracy in accuracies],
        [100 * accuracy.min for accuracy in accuracies],
        [100 * accuracy.max for accuracy in accuracies],
    )


def _blocks(variant: SweepVariant) -> int:
    return int(variant.values.fields["blocks"].number_value)


def _batch_norm(sweep: Sweep, variant: SweepVariant) -> bool:
    return bool(dict(variant.values.items()).get("batch_norm", sweep.spec.batch_norm))


def _label(sweep: Sweep, variant: SweepVariant) -> str:
    others: dict[str, Any] = dict(variant.values.items())
    others.pop("blocks")
    others.pop("batch_norm", None)
    convolutions = int(others.pop("block_convolutions", sweep.spec.block_convolutions))
    form = describe.block_form(convolutions, batch_norm=_batch_norm(sweep, variant))
    label = f"blocks {form}" if convolutions > 1 else form
    if not others:
        return label
    rest = Struct()
    rest.update(others)
    return f"{label}, {describe_sweep.values(rest)}"
