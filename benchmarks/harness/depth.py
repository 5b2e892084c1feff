"""Computes how convolutions change images and gradients, from the diagnoses of jobs."""

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
"""The divisor of a convolution with PyTorch's default weights and its ReLU, for the standard
deviation over the images and the gradient's norm.

The weights are uniform within 1 / sqrt(fan in) of 0, with variance 1 / (3 fan in). A third of the
variance passes the convolution, and about half of that passes the ReLU."""

ROUNDING = 2.0**-28
"""The distance between adjacent float32 numbers at 0.05, the size of a deep plain network's values.
Differences between images below it are rounding errors."""


class Measured(Protocol):
    """A job's diagnosis of the head or of a block."""

    @property
    def activation_std(self) -> float:
        """The standard deviation over the images, as a root mean square over the values."""

    @property
    def gradient_norm(self) -> float:
        """The norm of the loss's gradient with respect to the output."""


@dataclass
class Curve:
    """The results of one network.

    The diagnoses have an entry for the start and one per epoch; accuracies have one per epoch. Each
    diagnosis has an entry for the head and one per block.
    """

    block_convolutions: int
    train_accuracies: list[float] = field(default_factory=list)
    test_accuracies: list[float] = field(default_factory=list)
    activation_stds: list[list[float]] = field(default_factory=list)
    gradient_norms: list[list[float]] = field(default_factory=list)

    def add(self, diagnosis: Sequence[Measured]) -> None:
        """Adds the diagnosis of one moment."""
        self.activation_stds.append([block.activation_std for block in diagnosis])
        self.gradient_norms.append([block.gradient_norm for block in diagnosis])


def at_convolutions(values: Sequence[float], block_convolutions: int) -> dict[int, float]:
    """Returns the values by the number of block convolutions that precede them.

    Args:
        values: one for the head and one for each block.
        block_convolutions: the number of convolutions in each block.
    """
    return {block * block_convolutions: value for block, value in enumerate(values)}


def factor(values: dict[int, float], *, above: float = 0.0) -> float:
    """Returns the geometric mean of each convolution's divisor; below 1 the values grow.

    Args:
        values: positive values by the number of convolutions.
        above: the first value at or below it ends the list.

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
