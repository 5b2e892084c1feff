"""The notebook's protocol in the benchmark, and the table of its runs."""

import torch
from torch.nn import functional

from harness.notebook_protocol import EPOCHS, NETWORKS, Network, Run, initial_weights, published
from leadline.models.network import Architecture, BlockNetwork
from notebook_table import _report


def test_the_published_curves_end_at_the_published_table() -> None:
    curves = published()

    assert list(curves) == list(NETWORKS)
    assert {len(run.test) for run in curves.values()} == {EPOCHS}
    assert [f"{100 * curves[network].test[-1]:.2f}" for network in NETWORKS] == [
        *("10.00", "55.26", "53.77", "44.29", "10.03", "10.00")
    ]
    assert [curves[network].leaves_chance() for network in NETWORKS] == [
        *(None, 1, 3, 14, None, None)
    ]


def test_each_network_starts_from_weights_of_its_own_shape() -> None:
    for network, weights in initial_weights():
        ours = BlockNetwork(Architecture(blocks=network.blocks, batch_norm=network.batch_norm))
        ours.load_state_dict(weights, strict=True)


def test_the_dead_convolution_is_drawn_and_dropped() -> None:
    weights = dict(initial_weights())[Network(10, False)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        widen = torch.nn.Conv2d(3, 8, 5)
        torch.nn.Conv2d(8, 8, 5, stride=2)
        dead, alive = (torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))

    assert torch.equal(weights["head.widen.weight"], widen.weight)
    assert torch.equal(weights["blocks.0.first_conv.weight"], alive.weight)
    assert all(not torch.equal(value, dead.weight) for value in weights.values())


def test_the_second_network_is_drawn_after_the_epochs_of_the_first() -> None:
    weights = dict(initial_weights())[Network(10, True)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        BlockNetwork(Architecture(blocks=10, block_convolutions=2, batch_norm=False))
        for _ in range(EPOCHS * 5):
            torch.empty((), dtype=torch.int64).random_()
        widen = torch.nn.Conv2d(3, 8, 5)

    assert torch.equal(weights["head.widen.weight"], widen.weight)


def test_a_block_computes_what_the_notebooks_forward_pass_does() -> None:
    images = torch.rand(2, 8, 12, 12, generator=torch.Generator().manual_seed(0))
    network = BlockNetwork(Architecture(blocks=1, batch_norm=True)).train()
    weights = dict(network.blocks[0].named_parameters())

    def step(features: torch.Tensor) -> torch.Tensor:
        convolved = functional.conv2d(
            features, weights["first_conv.weight"], weights["first_conv.bias"], padding=1
        )
        return functional.relu(functional.batch_norm(convolved, None, None, training=True))

    assert torch.allclose(network.blocks(images), step(images), atol=1e-6)


def test_the_table_names_each_seed_and_the_epoch_that_leaves_chance() -> None:
    runs = {Network(2, False): [Run([0.1, 0.3], [0.1, 0.2]), Run([0.1, 0.1], [0.1, 0.1])]}

    report = _report(runs, [0.25])

    row = next(line for line in report.splitlines() if line.startswith("| 2 blocks, plain"))
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        *("2 blocks, plain", "30.0, 10.0", "20.0, 10.0", "15.0", "2, never"),
        *("57.36", "53.77", "3"),
    ]
    assert "training mode as the notebook did: 25.0; the notebook: 27.65" in report
