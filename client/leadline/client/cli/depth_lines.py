"""What the variants of a sweep came to, as lines over the depth."""

from typing import NamedTuple

import click
from google.protobuf.struct_pb2 import Struct, Value

from leadline.client import Sweep, SweepVariant
from leadline.client.cli import describe, describe_sweep


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
    others = Struct()
    others.CopyFrom(variant.values)
    others.fields.pop("blocks", None)
    norm = others.fields.pop("batch_norm", Value(bool_value=sweep.spec.batch_norm))
    convolutions = others.fields.pop(
        "block_convolutions", Value(number_value=sweep.spec.block_convolutions)
    )
    number = int(convolutions.number_value)
    label = describe.block_form(number, batch_norm=norm.bool_value)
    if number > 1:
        label = f"blocks {label}"
    return f"{label}, {describe_sweep.values(others)}" if others.fields else label
