"""Accuracies after equal epochs and equal steps: the arithmetic and the training."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from batch_size import _read, _write
from harness.batch_size_report import accuracies, report
from harness.shallow import SHALLOW, build, features
from harness.steps import Point, Recipe, epoch_steps, milestones, train
from leadline.models.datasets import Dataset, Split
from leadline.models.spec import TrainingSpec
from leadline.models.training import Trainer

SMALL = Recipe(network="2 blocks", batch_size=16, learning_rate=0.05, seed=3)


def split(images: int) -> Split:
    random = np.random.default_rng(images)
    return Split(
        random.integers(0, 256, (images, 32, 32, 3), np.uint8), random.integers(0, 10, images)
    )


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return Dataset("none", tuple("abcdefghij"), split(100), split(60))


def test_the_notebook_takes_some_twenty_thousand_steps() -> None:
    assert 51 * epoch_steps(50_000, 128) == 19_941
    assert 3 * epoch_steps(50_000, 4) == 37_500


def test_a_run_is_evaluated_at_the_ends_of_epochs_and_at_tenths_of_the_steps() -> None:
    assert milestones(images=100, batch_size=16, epochs=2, steps=30) == [
        *(3, 6, 7, 9, 12, 14, 15, 18, 21, 24, 27, 30)
    ]
    assert milestones(images=100, batch_size=50, epochs=3, steps=0) == [2, 4, 6]


def test_a_run_has_the_accuracies_of_a_training_job(dataset: Dataset) -> None:
    spec = TrainingSpec(blocks=2, batch_size=16, learning_rate=0.05, seed=3)
    trainer = Trainer(spec, dataset, device=torch.device("cpu"), threads=1)
    epochs = [trainer.train_epoch(epoch).metrics for epoch in (1, 2)]

    points = list(train(SMALL, dataset, [7, 14]))

    assert [point.test_accuracy for point in points] == [one.test_accuracy for one in epochs]
    assert [point.train_loss for point in points] == pytest.approx(
        [one.train_loss for one in epochs], rel=1e-12
    )


def test_a_run_that_diverges_ends(dataset: Dataset) -> None:
    wild = Recipe(network="2 convolutions", batch_size=16, learning_rate=1e20)

    points = list(train(wild, dataset, [7, 14, 21]))

    assert not points[-1].is_finite
    assert len(points) < 3


@pytest.mark.parametrize("name", SHALLOW)
def test_a_network_gives_a_logit_for_each_class(name: str) -> None:
    logits = build(name, 0)(torch.zeros(2, 3, 32, 32))

    assert logits.shape == (2, 10)
    assert features(name) in {100, 400, 1_152, 1_600}


def test_a_seed_decides_the_weights_of_a_network() -> None:
    first, again, other = (build("2 convolutions", seed) for seed in (1, 1, 2))

    assert torch.equal(next(first.parameters()), next(again.parameters()))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_accuracies_come_by_seed_and_only_where_a_run_got_there() -> None:
    found = {
        Recipe(network="2 blocks", batch_size=4, learning_rate=0.01, seed=seed): [
            Point(10, 2.0, 0.1 * seed),
            *([Point(20, 1.0, 0.5)] if seed == 2 else []),
        ]
        for seed in (2, 1)
    }

    assert accuracies(found, 10, batch_size=4) == pytest.approx([0.1, 0.2])
    assert accuracies(found, 20, batch_size=4) == [0.5]
    assert accuracies(found, 20, batch_size=8) == []


def test_a_run_that_diverged_keeps_its_last_accuracy() -> None:
    found = {SMALL: [Point(10, 2.0, 0.3), Point(20, math.nan, 0.1)]}

    assert accuracies(found, 10) == [0.3]
    assert accuracies(found, 40) == [0.1]


def test_the_report_has_equal_epochs_and_equal_steps() -> None:
    found = {SMALL: [Point(9_375, 1.7, 0.404), Point(20_000, 1.4, 0.493)]}

    text = report(found, images=50_000, epochs=3, steps=20_000)

    by_epochs, by_steps = text.split("After 20,000 steps")
    assert "40.4%" in by_epochs
    assert "49.3%" in by_steps


def test_runs_are_read_as_they_were_written(tmp_path: Path) -> None:

    found = {SMALL: [Point(10, 2.0, 0.3)]}
    _write(tmp_path / "found.json", found)

    assert _read([tmp_path / "found.json"]) == found
