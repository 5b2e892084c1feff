"""What the variants of a sweep came to, as lines over the depth."""

from typing import NamedTuple

import click
from google.protobuf.struct_pb2 import Struct

from leadline.client import Sweep, SweepVariant
from leadline.client.cli import describe, describe_sweep

_TWO = 2
"""Convolutions of a block, where it is not of one."""


class DepthLine(NamedTuple):
    """The test accuracies of one combination of the other axes, by ascending depth.

    Accuracies are of each job's best epoch, in percent, over the seeds.
    """

    label: str
    blocks: list[int]
    mean: list[float]
    lowest: list[float]
    highest: list[float]


def depth_lines(sweep: Sweep) -> list[DepthLine]:
    """A line for each combination of the axes beside depth and seed, in the order of the grid.

    Variants without a completed epoch are left out.

    Raises:
        click.ClickException: depth is no axis of the sweep, or no variant has
            completed an epoch.
    """
    if all(axis.field != "blocks" for axis in sweep.axes):
        axes = ", ".join(axis.field for axis in sweep.axes)
        raise click.ClickException(
            f"{sweep.name} has no axis blocks, only {axes}: there is no depth to draw over"
        )
    found: dict[str, list[SweepVariant]] = {}
    for variant in sweep.table.variants:
        if variant.best_test_accuracy.count:
            found.setdefault(_label(sweep, variant), []).append(variant)
    if not found:
        raise click.ClickException(f"no job of {sweep.name} has completed an epoch")
    return [_line(label, variants) for label, variants in found.items()]


def _line(label: str, variants: list[SweepVariant]) -> DepthLine:
    ascending = sorted(variants, key=_blocks)
    accuracies = [one.best_test_accuracy for one in ascending]
    return DepthLine(
        label,
        [_blocks(one) for one in ascending],
        [100 * one.mean for one in accuracies],
        [100 * one.min for one in accuracies],
        [100 * one.max for one in accuracies],
    )


def _blocks(variant: SweepVariant) -> int:
    return int(variant.values.fields["blocks"].number_value)


def _label(sweep: Sweep, variant: SweepVariant) -> str:
    others = {field: variant.values[field] for field in variant.values if field != "blocks"}
    norm = bool(others.pop("batch_norm", sweep.spec.batch_norm))
    of_two = others.pop("block_convolutions", sweep.spec.block_convolutions) == _TWO
    form = describe.block_form(_TWO if of_two else 1, batch_norm=norm)
    label = f"blocks {form}" if of_two else form
    if not others:
        return label
    rest = Struct()
    rest.update(others)
    return f"{label}, {describe_sweep.values(rest)}"
