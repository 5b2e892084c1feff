import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from leadline.models.initialization import initial_network
from leadline.models.network import Architecture, BlockNetwork
from leadline.models.spec import Initialization

DEEP = Architecture(blocks=30, batch_norm=True)


def test_the_default_is_what_torch_draws_for_the_seed() -> None:
    torch.manual_seed(7)
    expected = BlockNetwork(DEEP).state_dict()

    actual = initial_network(DEEP, Initialization.DEFAULT, seed=7).state_dict()

    assert list(actual) == list(expected)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("block_convolutions", "last_weights"),
    [
        # The weights of seed 0 since the first release. A job that an earlier version interrupted
        # must continue with the same weights.
        (2, ["0x1.715e7a0000000p-4", "-0x1.d065e60000000p-5"]),
        (1, ["-0x1.8bc6960000000p-4", "0x1.8aa50e0000000p-5"]),
    ],
)
def test_a_seeds_first_weights_are_the_same_in_every_release(
    block_convolutions: int, last_weights: list[str]
) -> None:
    architecture = Architecture(blocks=2, block_convolutions=block_convolutions, batch_norm=False)
    network = initial_network(architecture, Initialization.DEFAULT, 0)

    first = network.get_parameter("head.widen.weight")
    last = network.get_parameter("classifier.output.weight")
    assert [value.hex() for value in first.flatten()[:2].tolist()] == [
        "-0x1.c53fb20000000p-11",
        "0x1.fb703e0000000p-5",
    ]
    assert [value.hex() for value in last.flatten()[-2:].tolist()] == last_weights


@pytest.mark.parametrize("block_convolutions", [1, 2])
def test_kaiming_draws_weights_of_the_variance_that_what_follows_asks_for(
    block_convolutions: int,
) -> None:
    deep = replace(DEEP, blocks=60 // block_convolutions, block_convolutions=block_convolutions)
    network = initial_network(deep, Initialization.KAIMING, seed=1)

    blocks = [layer for layer in network.blocks.modules() if isinstance(layer, nn.Conv2d)]
    in_blocks = torch.cat([layer.weight.flatten() for layer in blocks])
    assert len(in_blocks) == 60 * 8 * 72
    assert in_blocks.std().item() == pytest.approx(math.sqrt(2 / 72), rel=0.01)
    assert in_blocks.mean().item() == pytest.approx(0, abs=0.003)
    hidden = network.get_parameter("classifier.hidden.weight")
    assert hidden.std().item() == pytest.approx(math.sqrt(2 / 100), rel=0.03)
    output = network.get_parameter("classifier.output.weight")
    assert output.std().item() == pytest.approx(math.sqrt(1 / 100), rel=0.1)
    halve = network.get_parameter("head.halve.weight")
    assert halve.std().item() == pytest.approx(math.sqrt(1 / 200), rel=0.1)
    assert network.tail.weight.std().item() == pytest.approx(math.sqrt(1 / 72), rel=0.15)


@pytest.mark.parametrize("block_convolutions", [1, 2])
def test_kaiming_lets_residual_blocks_add_as_much_as_goes_past_them(
    block_convolutions: int,
) -> None:
    deep = Architecture(
        blocks=30, block_convolutions=block_convolutions, batch_norm=False, residual=True
    )
    network = initial_network(deep, Initialization.KAIMING, seed=1)

    *others, last = (
        torch.stack(
            [network.get_parameter(f"blocks.{i}.{step}_conv.weight").var() for i in range(30)]
        ).mean()
        for step in ("first", "second")[:block_convolutions]
    )
    assert [other.item() for other in others] == pytest.approx(
        [2 / 72] * (block_convolutions - 1), rel=0.05
    )
    assert last.item() == pytest.approx(2 / 72 / 30, rel=0.05)
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = network.head(images)
        growth = float(network.blocks(features).std() / features.std())
    assert 0.5 < growth < 5


def test_kaiming_sets_biases_to_zero_and_leaves_batch_norms_alone() -> None:
    network = initial_network(DEEP, Initialization.KAIMING, seed=1)

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            assert not layer.bias.any()
        if isinstance(layer, nn.BatchNorm2d):
            assert torch.equal(layer.weight, torch.ones(8))


@pytest.mark.parametrize("initialization", list(Initialization))
def test_a_seed_decides_every_weight_and_disturbs_no_random_numbers(
    initialization: Initialization,
) -> None:
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)

    first, second = (initial_network(DEEP, initialization, seed=3).state_dict() for _ in range(2))
    other = initial_network(DEEP, initialization, seed=4).state_dict()

    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["tail.weight"], other["tail.weight"])


@pytest.mark.parametrize("block_convolutions", [1, 2])
def test_kaiming_keeps_images_apart_where_the_default_makes_them_alike(
    block_convolutions: int,
) -> None:
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    kept = {}
    deep = Architecture(
        blocks=20 // block_convolutions, block_convolutions=block_convolutions, batch_norm=False
    )
    for initialization in Initialization:
        network = initial_network(deep, initialization, seed=0)
        with torch.inference_mode():
            features = network.head(images)
            before, after = (
                values.var(dim=0).mean().sqrt() for values in (features, network.blocks(features))
            )
        kept[initialization] = float(after / before)

    assert kept[Initialization.DEFAULT] < 1e-5
    assert 0.01 < kept[Initialization.KAIMING] < 10
