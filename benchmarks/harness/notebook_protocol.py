"""The notebook's protocol: its six networks, their curves and their initial weights."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from leadline.models.network import Architecture, BlockNetwork

EPOCHS = 51
"""Epochs of each run: int(20000 / (50000 / 128))."""

_CURVES = Path(__file__).resolve().parent.parent / "notebook_curves.csv"

# The notebook seeds its generator once, before its first network.
_SEED = 4

# The random integers of an epoch: two for the training loader, two for the evaluation's training
# loader, one for the test loader.
_INTEGERS_AN_EPOCH = 5


@dataclass(frozen=True)
class Network:
    """One of the notebook's networks."""

    blocks: int
    batch_norm: bool

    @property
    def label(self) -> str:
        """A label for humans: "10 blocks, batch norm"."""
        return f"{self.blocks} blocks, {'batch norm' if self.batch_norm else 'plain'}"

    @property
    def slug(self) -> str:
        """A label for file names: "10-batch-norm"."""
        return f"{self.blocks}-{'batch-norm' if self.batch_norm else 'plain'}"


NETWORKS = (
    Network(10, False),
    Network(10, True),
    Network(2, False),
    Network(4, False),
    Network(6, False),
    Network(8, False),
)
"""The networks in the order in which the notebook built and trained them."""


@dataclass
class Run:
    """The accuracies of one run, one per epoch, as fractions in [0, 1]."""

    train: list[float]
    test: list[float]

    def leaves_chance(self, threshold: float = 0.15) -> int | None:
        """Returns the first epoch, counted from 1, with a test accuracy above `threshold`."""
        return next(
            (epoch for epoch, accuracy in enumerate(self.test, 1) if accuracy > threshold), None
        )


def published(path: Path = _CURVES) -> dict[Network, Run]:
    """Returns the notebook's own curves."""
    curves = {network: Run([], []) for network in NETWORKS}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            run = curves[Network(int(row["blocks"]), row["batch_norm"] == "true")]
            run.train.append(float(row["train_accuracy_percent"]) / 100)
            run.test.append(float(row["test_accuracy_percent"]) / 100)
    return curves


def initial_weights() -> Iterator[tuple[Network, dict[str, Tensor]]]:
    """Yields the notebook's networks with their initial weights.

    The notebook draws the parameters in the order of their declaration, for both convolutions of a
    block. It does not use the result of the first one. This function draws the first one's weights
    too, so that the other weights are right, and drops them. It does not change the caller's random
    state.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        drawn = []
        for network in NETWORKS:
            drawn.append((network, _draw(network)))
            for _ in range(EPOCHS * _INTEGERS_AN_EPOCH):
                torch.empty((), dtype=torch.int64).random_()
    yield from drawn


def _draw(network: Network) -> dict[str, Tensor]:
    declared = BlockNetwork(
        Architecture(blocks=network.blocks, block_convolutions=2, batch_norm=network.batch_norm)
    )
    return {
        name.replace("second_", "first_"): value
        for name, value in declared.state_dict().items()
        if "first_" not in name
    }
