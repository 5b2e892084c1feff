"""What the notebook ran and published: its six networks, their curves, their initial weights."""

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

# The notebook seeds its generator once, before it builds its first network.
_SEED = 4

# What an epoch draws: two integers for the training loader, two for the training loader of
# the evaluation, one for the test loader.
_INTEGERS_AN_EPOCH = 5


@dataclass(frozen=True)
class Network:
    """One of the notebook's networks."""

    blocks: int
    batch_norm: bool

    @property
    def label(self) -> str:
        """For people: "10 blocks, batch norm"."""
        return f"{self.blocks} blocks, {'batch norm' if self.batch_norm else 'plain'}"

    @property
    def slug(self) -> str:
        """For file names: "10-batch-norm"."""
        return f"{self.blocks}-{'batch-norm' if self.batch_norm else 'plain'}"


NETWORKS = (
    Network(10, False),
    Network(10, True),
    Network(2, False),
    Network(4, False),
    Network(6, False),
    Network(8, False),
)
"""In the order in which the notebook built and trained them."""


@dataclass
class Run:
    """The accuracies of one run, an entry an epoch, as fractions in [0, 1]."""

    train: list[float]
    test: list[float]

    def leaves_chance(self, threshold: float = 0.15) -> int | None:
        """The first epoch, 1 for the first, with a test accuracy above `threshold`."""
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
    """Yields the notebook's networks with the weights that they started from.

    Building a network draws its parameters in the order of their declaration,
    those of both convolutions of a block. The first of the two is dead in the
    notebook: its weights are drawn, so that all others come out right, and
    dropped. The caller's random numbers are left alone.
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
