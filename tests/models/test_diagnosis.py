import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from leadline.models.datasets import Dataset, Split
from leadline.models.diagnosis import diagnose
from leadline.models.initialization import initial_network
from leadline.models.metrics import BlockDiagnosis
from leadline.models.network import Architecture, BlockNetwork
from leadline.models.spec import Initialization, TrainingSpec
from leadline.models.training import Trainer

SPEC = TrainingSpec(dataset="test", blocks=2, batch_norm=True, batch_size=64, diagnostics=True)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return (
        torch.randn(20, 3, 32, 32, generator=generator),
        torch.randint(10, (20,), generator=generator),
    )


def network(
    *, batch_norm: bool, residual: bool = False, blocks: int = 2, block_convolutions: int = 1
) -> BlockNetwork:
    architecture = Architecture(
        blocks=blocks,
        block_convolutions=block_convolutions,
        batch_norm=batch_norm,
        residual=residual,
    )
    return initial_network(architecture, Initialization.KAIMING, seed=1)


def mean_loss(blocks: BlockNetwork, features: torch.Tensor, labels: torch.Tensor) -> float:
    logits = blocks.classifier(blocks.tail(blocks.blocks(features)))
    return torch.nn.functional.cross_entropy(logits, labels).item()


@pytest.mark.parametrize("block_convolutions", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
def test_a_gradient_says_how_the_loss_changes_with_what_the_head_puts_out(
    batch: tuple[torch.Tensor, torch.Tensor], residual: bool, block_convolutions: int
) -> None:
    images, labels = batch
    deep = network(batch_norm=True, residual=residual, block_convolutions=block_convolutions)
    deep.double().train()
    with torch.no_grad():
        features = deep.head(images.double())
        # In the direction of its gradient, a function grows by the gradient's norm.
        norm = diagnose(deep, images.double(), labels)[0].gradient_norm
        parameter = features.clone().requires_grad_()
    with torch.enable_grad():
        logits = deep.classifier(deep.tail(deep.blocks(parameter)))
        loss = torch.nn.functional.cross_entropy(logits, labels)
        (gradient,) = torch.autograd.grad(loss, parameter)
    step = 1e-5 * gradient / gradient.norm()
    with torch.no_grad():
        change = mean_loss(deep, features + step, labels) - mean_loss(deep, features - step, labels)
    assert change / 2e-5 == pytest.approx(norm, rel=1e-3)


@pytest.mark.parametrize("block_convolutions", [1, 2])
def test_a_spread_is_that_of_the_images_and_not_of_the_channels(
    batch: tuple[torch.Tensor, torch.Tensor], block_convolutions: int
) -> None:
    images, labels = batch
    plain = network(batch_norm=False, block_convolutions=block_convolutions)
    last = ("first", "second")[block_convolutions - 1]
    with torch.no_grad():
        plain.get_parameter(f"blocks.0.{last}_conv.bias").copy_(torch.arange(8.0) * 100)
        first = plain.blocks[0](plain.head(images)).double().numpy()

    diagnosis = diagnose(plain, images, labels)

    expected = math.sqrt(np.mean(np.var(first, axis=0)))
    assert diagnosis[1].activation_std == pytest.approx(expected, rel=1e-6)
    assert diagnosis[1].activation_std < 10
    assert np.std(first) > 100


@pytest.mark.parametrize("block_convolutions", [1, 2])
def test_there_is_one_for_the_head_and_one_for_each_block(
    batch: tuple[torch.Tensor, torch.Tensor], block_convolutions: int
) -> None:
    for blocks in (0, 3):
        plain = network(batch_norm=False, blocks=blocks, block_convolutions=block_convolutions)
        diagnosis = diagnose(plain, *batch)
        assert [one.block for one in diagnosis] == list(range(blocks + 1))
        assert all(one.activation_std > 0 and one.gradient_norm > 0 for one in diagnosis)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_diagnosis_changes_nothing_and_is_the_same_in_either_mode(
    batch: tuple[torch.Tensor, torch.Tensor], mode: str
) -> None:
    deep = network(batch_norm=True).train(mode == "train")
    before = {name: value.clone() for name, value in deep.state_dict().items()}
    modes = [module.training for module in deep.modules()]

    diagnosis = diagnose(deep, *batch)

    assert all(torch.equal(value, before[name]) for name, value in deep.state_dict().items())
    assert [module.training for module in deep.modules()] == modes
    assert all(parameter.grad is None for parameter in deep.parameters())
    assert diagnosis == diagnose(deep.train(mode != "train"), *batch)
    deep.train()(batch[0])
    assert int(deep.get_buffer("blocks.0.first_norm.num_batches_tracked")) == 1


def test_a_trainer_diagnoses_on_images_of_all_its_training_set(
    dataset: Dataset, cpu: torch.device
) -> None:
    images, labels = (np.concatenate([dataset.train.images] * 6), np.tile(dataset.train.labels, 6))
    order = np.argsort(labels, kind="stable")  # by class, like in a folder
    large = replace(dataset, train=Split(images=images[order], labels=labels[order]))
    trainer = Trainer(SPEC, large, device=cpu)
    chosen = np.arange(512) * 1200 // 512
    pixels = torch.from_numpy(images[order][chosen]).permute(0, 3, 1, 2).float() / 127.5 - 1

    diagnosis = trainer.diagnose()

    expected = diagnose(trainer.network, pixels, torch.from_numpy(labels[order][chosen]))
    for one, other in zip(diagnosis, expected, strict=True):
        assert one.activation_std == pytest.approx(other.activation_std, rel=1e-4)
        assert one.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-4)
    assert set(labels[order][chosen]) == {0, 1, 2}


def test_a_trainer_diagnoses_where_it_is_asked_to_and_the_weights_are_the_same(
    dataset: Dataset, cpu: torch.device
) -> None:
    asked = Trainer(SPEC, dataset, device=cpu)
    silent = Trainer(replace(SPEC, diagnostics=False), dataset, device=cpu)
    initial = asked.diagnose()

    after = [asked.train_epoch(epoch).diagnosis for epoch in (1, 2)]

    assert silent.diagnose() == ()
    assert [silent.train_epoch(epoch).diagnosis for epoch in (1, 2)] == [(), ()]
    assert len({initial, *after}) == 3
    assert all(isinstance(one, BlockDiagnosis) for one in after[0])
    expected = silent.network.state_dict()
    assert all(
        torch.equal(value, expected[name]) for name, value in asked.network.state_dict().items()
    )
