import math
import pickle
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from leadline.models.augmentation import Variations
from leadline.models.datasets import Dataset
from leadline.models.network import BlockNetwork
from leadline.models.schedule import learning_rate
from leadline.models.spec import (
    Augmentation,
    Initialization,
    Optimizer,
    Precision,
    Schedule,
    TrainingSpec,
)
from leadline.models.training import DivergedError, Phase, Trainer

SPEC = TrainingSpec(dataset="test", blocks=1, batch_norm=True, batch_size=64, seed=3)

OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": Optimizer.SGD},
    {"optimizer": Optimizer.SGD, "momentum": 0.9, "weight_decay": 0.01},
    {"optimizer": Optimizer.SGD, "momentum": 0.9, "nesterov": True},
    {"schedule": Schedule.ONE_CYCLE, "epochs": 2, "momentum": 0.9, "residual": True},
    {"block_convolutions": 2, "momentum": 0.9},
    {"augmentation": Augmentation.FLIP_CROP, "initialization": Initialization.KAIMING},
    {"optimizer": Optimizer.ADAM, "learning_rate": 0.001, "weight_decay": 0.01},
    {"optimizer": Optimizer.ADAMW, "learning_rate": 0.001, "weight_decay": 0.5},
]


def images_of(dataset: Dataset, indices: Any) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(dataset.train.images[indices]))
    # In the memory layout of `normalize`. Another layout changes the order of sums, and Adam turns
    # rounding into whole steps for a bias that batch norm leaves without a gradient.
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def order_of(trainer: Trainer, epoch: int) -> list[int]:
    return [int(index) for index in trainer._order(epoch)]


def varied_images(trainer: Trainer, epoch: int) -> torch.Tensor:
    """Returns the training set of an epoch, augmented image by image."""
    spec, order = trainer.spec, order_of(trainer, epoch)
    images = images_of(trainer.dataset, order)
    drawn = Variations.draw(
        spec.augmentation, seed=spec.seed, epoch=epoch, images=len(order), device=trainer.device
    )
    if drawn is not None:
        for place in range(len(order)):
            pixels = trainer.dataset.train.images[order[place]].copy()
            varied = drawn.apply(torch.from_numpy(pixels)[None], place)
            images[place] = varied[0].permute(2, 0, 1).float() / 127.5 - 1
    return images


def train_plainly(trainer: Trainer, epochs: int) -> tuple[nn.Module, float]:
    """Trains in plain torch, with a trainer's initial weights and orders."""
    network = BlockNetwork(trainer.architecture)
    network.load_state_dict(trainer.network.state_dict())
    spec, dataset = trainer.spec, trainer.dataset
    options: dict[str, Any] = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
    kinds: dict[Optimizer, Any] = {
        Optimizer.SGD: partial(torch.optim.SGD, momentum=spec.momentum, nesterov=spec.nesterov),
        Optimizer.ADAM: torch.optim.Adam,
        Optimizer.ADAMW: torch.optim.AdamW,
    }
    optimizer, step = kinds[spec.optimizer](network.parameters(), **options), 0
    for epoch in range(1, epochs + 1):
        order, losses = order_of(trainer, epoch), []
        varied = varied_images(trainer, epoch)
        for start in range(0, len(order), spec.batch_size):
            indices = order[start : start + spec.batch_size]
            (group,) = optimizer.param_groups
            group["lr"] = learning_rate(spec, step, 4 * spec.epochs)
            step += 1
            labels = torch.from_numpy(np.array(dataset.train.labels[indices]))
            logits = network(varied[start : start + spec.batch_size])
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(logits, labels)
            loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
            optimizer.step()
            losses += nn.functional.cross_entropy(logits, labels, reduction="none").tolist()
    return network, float(np.mean(losses))


@pytest.mark.parametrize("options", OPTIMIZERS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_training_agrees_with_plain_torch(
    dataset: Dataset, cpu: torch.device, options: dict[str, Any], batch_norm: bool
) -> None:
    trainer = Trainer(replace(SPEC, batch_norm=batch_norm, **options), dataset, device=cpu)
    initial = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    expected, expected_loss = train_plainly(trainer, epochs=2)
    trainer.train_epoch(1)
    outcome = trainer.train_epoch(2)
    for name, value in expected.state_dict().items():
        # A batch norm subtracts a bias before it. So torch changes the bias and the running mean
        # only by rounding, which some optimizers turn into whole steps.
        if batch_norm and name.startswith("blocks") and name.endswith(("v.bias", "g_mean")):
            continue
        actual = trainer.network.state_dict()[name]
        if not batch_norm and trainer.spec.optimizer is not Optimizer.SGD:
            # Adam divides by the size of the gradient, so a gradient of mere rounding changes its
            # weight as much as any other. So the test compares whole tensors: a rate that is 2 %
            # off fails, and so does Adam instead of AdamW.
            moved = (value - initial[name]).norm()
            assert (actual - value).norm() <= 2e-2 * moved, name
            continue
        # Rounding also decides the ReLU of a value that batch norm has made nearly zero.
        assert torch.allclose(actual, value, atol=1e-3 if batch_norm else 1e-6), name
    assert outcome.metrics.train_loss == pytest.approx(expected_loss, rel=1e-4)


def test_metrics_are_measured_after_the_epoch_in_evaluation_mode(
    dataset: Dataset, cpu: torch.device
) -> None:
    trainer = Trainer(SPEC, dataset, device=cpu)
    outcome = trainer.train_epoch(1)
    network = trainer.network.eval()
    with torch.no_grad():
        predicted = network(images_of(dataset, slice(None))).argmax(1).numpy()
    metrics = outcome.metrics
    assert metrics.train_accuracy == np.count_nonzero(predicted == dataset.train.labels) / 200
    assert metrics.test_accuracy == outcome.test.accuracy
    assert metrics.test_loss == outcome.test.loss
    assert metrics.test_accuracy == np.mean(
        outcome.test.predictions.predicted == dataset.test.labels
    )
    assert (metrics.epoch, metrics.learning_rate) == (1, 0.01)
    assert metrics.seconds > 0
    assert metrics.images_per_second * metrics.seconds >= 200


def test_the_learning_rate_of_an_epoch_is_that_of_its_last_step(
    dataset: Dataset, cpu: torch.device
) -> None:
    spec = replace(SPEC, schedule=Schedule.COSINE, epochs=3)
    trainer = Trainer(spec, dataset, device=cpu)

    rates = [trainer.train_epoch(epoch).metrics.learning_rate for epoch in (1, 2, 3)]

    assert rates == [learning_rate(spec, step, 12) for step in (3, 7, 11)]


def test_accuracies_are_measured_on_images_that_are_not_varied(
    dataset: Dataset, cpu: torch.device
) -> None:
    spec = replace(SPEC, augmentation=Augmentation.FLIP_CROP)
    trainer = Trainer(spec, dataset, device=cpu)
    metrics = trainer.train_epoch(1).metrics
    with torch.no_grad():
        predicted = trainer.network.eval()(images_of(dataset, slice(None))).argmax(1).numpy()
    assert metrics.train_accuracy == np.mean(predicted == dataset.train.labels)


def test_steps_in_bfloat16_leave_weights_and_evaluations_in_float32(
    dataset: Dataset, cpu: torch.device
) -> None:
    coarse = Trainer(replace(SPEC, precision=Precision.BFLOAT16), dataset, device=cpu)
    fine = Trainer(SPEC, dataset, device=cpu)
    outcome, expected = coarse.train_epoch(1), fine.train_epoch(1)

    weights, others = coarse.network.state_dict(), fine.network.state_dict()
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}
    assert not torch.equal(weights["tail.weight"], others["tail.weight"])
    assert torch.allclose(weights["tail.weight"], others["tail.weight"], atol=0.01)
    assert outcome.metrics.train_loss == pytest.approx(expected.metrics.train_loss, rel=0.02)
    with torch.no_grad():
        logits = coarse.network.eval()(images_of(dataset, slice(None)))
    assert logits.dtype == torch.float32
    predicted = logits.argmax(1).numpy()
    assert outcome.metrics.train_accuracy == np.mean(predicted == dataset.train.labels)


def test_a_network_learns(dataset: Dataset, cpu: torch.device) -> None:
    spec = replace(SPEC, batch_size=16, learning_rate=0.01, momentum=0.9)
    trainer = Trainer(spec, dataset, device=cpu)
    accuracies = [trainer.train_epoch(epoch).metrics.test_accuracy for epoch in range(1, 7)]
    assert max(accuracies) > 0.9


def test_an_order_is_a_permutation_that_depends_on_seed_and_epoch_alone(
    dataset: Dataset, cpu: torch.device
) -> None:
    trainer = Trainer(SPEC, dataset, device=cpu)
    first, second = order_of(trainer, 1), order_of(trainer, 2)
    assert sorted(first) == sorted(second) == list(range(200))
    assert first != second
    trainer.train_epoch(1)
    assert order_of(trainer, 2) == second
    assert order_of(Trainer(replace(SPEC, blocks=0), dataset, device=cpu), 1) == first
    assert order_of(Trainer(replace(SPEC, seed=4), dataset, device=cpu), 1) != first


def test_an_order_is_the_same_on_every_machine(dataset: Dataset, cpu: torch.device) -> None:
    assert order_of(Trainer(SPEC, dataset, device=cpu), 1)[:8] == [
        122,
        123,
        133,
        34,
        14,
        125,
        54,
        117,
    ]


def test_the_same_spec_gives_the_same_weights_and_disturbs_no_random_numbers(
    dataset: Dataset, cpu: torch.device
) -> None:
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    first, second = (Trainer(SPEC, dataset, device=cpu) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    for trainer in (first, second):
        trainer.train_epoch(1)
    for name, value in first.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value)
    other = Trainer(replace(SPEC, seed=4), dataset, device=cpu)
    assert not torch.equal(other.network.tail.weight, first.network.tail.weight)


def test_the_last_partial_batch_is_kept(dataset: Dataset, cpu: torch.device) -> None:
    trainer = Trainer(SPEC, dataset, device=cpu)
    trainer.train_epoch(1)
    batches = trainer.network.state_dict()["blocks.0.first_norm.num_batches_tracked"]
    assert int(batches) == 4  # batches of 64, 64, 64 and 8


def test_a_batch_may_be_larger_than_the_dataset(dataset: Dataset, cpu: torch.device) -> None:
    trainer = Trainer(replace(SPEC, batch_size=65_536), dataset, device=cpu)
    assert math.isfinite(trainer.train_epoch(1).metrics.train_loss)


def test_progress_goes_through_both_phases(dataset: Dataset, cpu: torch.device) -> None:
    seen: list[tuple[Phase, int, int]] = []
    trainer = Trainer(SPEC, dataset, device=cpu, on_progress=lambda *step: seen.append(step))
    trainer.train_epoch(1)
    assert seen == [
        (Phase.TRAINING, 64, 200),
        (Phase.TRAINING, 128, 200),
        (Phase.TRAINING, 192, 200),
        (Phase.TRAINING, 200, 200),
        (Phase.EVALUATING, 200, 260),
        (Phase.EVALUATING, 260, 260),
    ]


def test_what_progress_raises_ends_the_epoch(dataset: Dataset, cpu: torch.device) -> None:
    def cancel(*_: object) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        Trainer(SPEC, dataset, device=cpu, on_progress=cancel).train_epoch(1)


def test_a_loss_that_is_not_finite_is_divergence(dataset: Dataset, cpu: torch.device) -> None:
    spec = replace(SPEC, batch_norm=False, learning_rate=1_000.0, batch_size=16)
    trainer = Trainer(spec, dataset, device=cpu)
    with pytest.raises(DivergedError, match="diverged in epoch 1: the loss is nan") as raised:
        trainer.train_epoch(1)
    assert raised.value.epoch == 1
    assert not math.isfinite(raised.value.loss)


def test_divergence_in_the_last_step_is_noticed_too(dataset: Dataset, cpu: torch.device) -> None:
    # In the only step, the loss is that of the initial weights, which is finite.
    spec = replace(SPEC, batch_norm=False, learning_rate=1_000.0, batch_size=200)
    trainer = Trainer(spec, dataset, device=cpu)
    with torch.no_grad():
        trainer.network.tail.weight.mul_(1e12)
    with pytest.raises(DivergedError):
        trainer.train_epoch(1)


def test_divergence_can_be_sent_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(DivergedError(3, math.inf)))  # noqa: S301 - our own bytes
    assert (error.epoch, error.loss) == (3, math.inf)
    assert "epoch 3" in str(error)
