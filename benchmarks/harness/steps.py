"""Trains networks by steps, and evaluates them at given steps."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.shallow import build
from leadline.models.batches import DeviceSplit
from leadline.models.datasets import Dataset
from leadline.models.engine import Engine, SimdEngine, TorchEngine
from leadline.models.evaluation import evaluate
from leadline.models.network import BlockNetwork

__all__ = ["Point", "Recipe", "epoch_steps", "milestones", "train"]

_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A network to train, and how."""

    network: str
    """A name in `harness.shallow.SHALLOW`."""

    batch_size: int
    """Images per step; the last batch of an epoch may have fewer."""

    learning_rate: float
    """SGD's constant learning rate."""

    momentum: float = 0.0
    """SGD's momentum."""

    seed: int = 0
    """The seed of the weights and of the order of the images."""


@dataclass(frozen=True)
class Point:
    """An evaluation of a network after some steps."""

    step: int
    """The number of steps so far."""

    train_loss: float
    """The mean loss over the images since the previous point, in nats; NaN after divergence."""

    test_accuracy: float
    """The accuracy on the whole test set, in [0, 1]."""

    @property
    def is_finite(self) -> bool:
        """Whether the loss is finite; otherwise training has diverged."""
        return math.isfinite(self.train_loss)


def epoch_steps(images: int, batch_size: int) -> int:
    """Returns the steps of an epoch, including its last, smaller batch."""
    return math.ceil(images / batch_size)


def milestones(*, images: int, batch_size: int, epochs: int, steps: int) -> list[int]:
    """Returns the steps at which to evaluate, in ascending order.

    These are the ends of the first `epochs` epochs, and every tenth of `steps`.

    Args:
        images: the number of images in the training set.
        batch_size: images per step.
        epochs: the epochs to measure, 0 or more.
        steps: the steps to measure, 0 or more.
    """
    ends = {epoch_steps(images, batch_size) * epoch for epoch in range(1, epochs + 1)}
    tenths = {steps * tenth // 10 for tenth in range(1, 11)}
    return sorted((ends | tenths) - {0})


def train(recipe: Recipe, dataset: Dataset, at: list[int]) -> Iterator[Point]:
    """Trains on one core, and evaluates after each step in `at`, which must be ascending.

    The weights, the order of the images and the arithmetic are those of a training job. A job with
    the same spec has the same accuracies. If the loss is no longer finite, training ends after one
    more evaluation.
    """
    train_split = DeviceSplit(dataset.train, _CPU)
    engine, optimizer = _prepare(recipe, len(train_split))
    batches = _batches(train_split, recipe.batch_size, recipe.seed)
    done = 0
    for step in at:
        loss = _advance(engine, optimizer, batches, step - done)
        done = step
        point = Point(step, loss, evaluate(engine, dataset.test, device=_CPU).accuracy)
        yield point
        if not point.is_finite:
            return


def _prepare(recipe: Recipe, images: int) -> tuple[Engine, torch.optim.Optimizer]:
    network = build(recipe.network, recipe.seed)
    engine: Engine
    if isinstance(network, BlockNetwork):
        engine = SimdEngine(network, largest_batch=min(recipe.batch_size, images), threads=1)
    else:
        torch.set_num_threads(1)
        engine = TorchEngine(network)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, fused=True
    )
    return engine, optimizer


def _advance(
    engine: Engine,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[tuple[Tensor, Tensor]],
    steps: int,
) -> float:
    """Trains some steps, and returns the mean loss."""
    total, images = torch.zeros((), dtype=torch.float64), 0
    for _ in range(steps):
        pixels, labels = next(batches)
        total += engine.gradients(pixels, labels) * len(labels)
        optimizer.step()
        images += len(labels)
    return total.item() / images


def _batches(split: DeviceSplit, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    epoch = 0
    while True:
        epoch += 1
        # A training job uses the same order of images.
        keys = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(len(split))
        order = torch.from_numpy(np.argsort(keys, kind="stable"))
        for indices in torch.split(order, batch_size):
            yield split.take_pixels(indices)
