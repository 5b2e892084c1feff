"""What becomes of images and gradients on their way through convolutions: the arithmetic."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

__all__ = [
    "EXPECTED_FACTOR",
    "ROUNDING",
    "Curve",
    "Measured",
    "at_convolutions",
    "factor",
]

EXPECTED_FACTOR = math.sqrt(6.0)
"""By which a convolution with PyTorch's default weights and the ReLU behind it divide the
standard deviation over the images, and the norm of a gradient in the backward pass.

Weights are uniform within 1 / sqrt(fan in) of 0, of variance 1 / (3 fan in): a third of the
variance passes the convolution, and about half of that the ReLU."""

ROUNDING = 2.0**-28
"""The distance of neighbouring float32 numbers at 0.05, the size of a deep plain network's
values: differences between images that are as small are rounding."""


class Measured(Protocol):
    """What a job measures of the head or of a block."""

    @property
    def activation_std(self) -> float:
        """The standard deviation over the images, root mean square over the values."""

    @property
    def gradient_norm(self) -> float:
        """The norm of the loss's gradient with respect to the output."""


@dataclass
class Curve:
    """What became of one network.

    The lists have an entry for the start, where no accuracy is known, and one
    for each epoch; those of a diagnosis one for the head and one for each block.
    """

    block_convolutions: int
    train_accuracies: list[float] = field(default_factory=list)
    test_accuracies: list[float] = field(default_factory=list)
    activation_stds: list[list[float]] = field(default_factory=list)
    gradient_norms: list[list[float]] = field(default_factory=list)

    def add(self, diagnosis: Sequence[Measured]) -> None:
        """Adds what was measured at one moment."""
        self.activation_stds.append([block.activation_std for block in diagnosis])
        self.gradient_norms.append([block.gradient_norm for block in diagnosis])


def at_convolutions(values: Sequence[float], block_convolutions: int) -> dict[int, float]:
    """Returns values by how many convolutions of the blocks an image has passed.

    Args:
        values: of the head and of each block.
        block_convolutions: convolutions of each block.
    """
    return {block * block_convolutions: value for block, value in enumerate(values)}


def factor(values: dict[int, float], *, above: float = 0.0) -> float:
    """Returns by how much one convolution divides, in the geometric mean; below 1: it grows.

    Args:
        values: by number of convolutions, positive.
        above: values up to it do not count, nor those behind the first such value.

    Raises:
        ValueError: fewer than two values count.
    """
    counted = []
    for convolutions, value in sorted(values.items()):
        if value <= above:
            break
        counted.append((convolutions, value))
    if len(counted) <= 1:
        raise ValueError(f"a factor needs two values above {above}, but there are {len(counted)}")
    (first, start), (last, end) = counted[0], counted[-1]
    return float((start / end) ** (1 / (last - first)))
