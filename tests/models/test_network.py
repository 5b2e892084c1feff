import pytest
import torch
from torch import Tensor, nn

from leadline.models.network import (
    Architecture,
    Block,
    BlockNetwork,
    ResidualBlock,
    parameter_count,
)


class ProtocolNetwork(nn.Module):
    """A second, independent definition of the network."""

    def __init__(self, blocks: int, block_convolutions: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5, stride=1, padding=0)
        self.conv2 = nn.Conv2d(8, 8, 5, stride=2, padding=0)
        layers: list[nn.Module] = []
        for _ in range(block_convolutions * blocks):
            layers.append(nn.Conv2d(8, 8, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(8))
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)
        self.conv3 = nn.Conv2d(8, 4, 3, stride=2, padding=0)
        self.fc1 = nn.Linear(100, 100)
        self.fc2 = nn.Linear(100, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3(self.layers(self.conv2(self.conv1(x))))
        logits: Tensor = self.fc2(torch.relu(self.fc1(x.reshape(-1, 100))))
        return logits


class NotebookBlock(nn.Module):
    """A block of the notebook, which overwrites the result of its first convolution."""

    def __init__(self, *, batch_norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8) if batch_norm else nn.Identity()
        self.bn2 = nn.BatchNorm2d(8) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        torch.relu(self.bn1(self.conv1(x)))
        result: Tensor = torch.relu(self.bn2(self.conv2(x)))
        return result


@pytest.mark.parametrize(
    ("blocks", "block_convolutions", "batch_norm", "parameters"),
    [
        (2, 1, False, 14_776),
        (10, 1, False, 19_448),
        (10, 1, True, 19_608),
        (2, 2, False, 15_944),
        (10, 2, False, 25_288),
        (10, 2, True, 25_608),
    ],
)
def test_a_network_has_the_parameters_of_its_convolutions(
    blocks: int, block_convolutions: int, batch_norm: bool, parameters: int
) -> None:
    architecture = Architecture(
        blocks=blocks, block_convolutions=block_convolutions, batch_norm=batch_norm
    )
    assert parameter_count(BlockNetwork(architecture)) == parameters


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_block_of_one_convolution_computes_what_the_notebooks_block_does(
    batch_norm: bool,
) -> None:
    torch.manual_seed(5)
    block = Block(convolutions=1, batch_norm=batch_norm)
    notebook = NotebookBlock(batch_norm=batch_norm)
    notebook.conv2.load_state_dict(block.get_submodule("first_conv").state_dict())
    features = torch.randn(4, 8, 12, 12)

    actual, expected = block(features), notebook(features)
    for output in (actual, expected):
        output.square().sum().backward()

    assert torch.equal(actual, expected)
    weight = block.get_parameter("first_conv.weight")
    assert weight.grad is not None
    assert notebook.conv2.weight.grad is not None
    assert torch.equal(weight.grad, notebook.conv2.weight.grad)
    assert notebook.conv1.weight.grad is None


def test_frozen_parameters_do_not_count() -> None:
    layer = nn.Linear(3, 4)
    layer.bias.requires_grad_(False)
    assert parameter_count(layer) == 12


@pytest.mark.parametrize("blocks", [0, 1, 64])
@pytest.mark.parametrize("block_convolutions", [1, 2])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_depth_gives_logits(blocks: int, block_convolutions: int, batch_norm: bool) -> None:
    architecture = Architecture(
        blocks=blocks, block_convolutions=block_convolutions, batch_norm=batch_norm, classes=7
    )
    network = BlockNetwork(architecture)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_activations_have_the_protocols_shapes() -> None:
    network = BlockNetwork(Architecture(blocks=2, batch_norm=True))
    wide = network.head.get_submodule("widen")(torch.zeros(1, 3, 32, 32))
    halved = network.head.get_submodule("halve")(wide)
    features = network.blocks(halved)
    tail = network.tail(features)
    assert [list(value.shape[1:]) for value in (wide, halved, features, tail)] == [
        [8, 28, 28],
        [8, 12, 12],
        [8, 12, 12],
        [4, 5, 5],
    ]


@pytest.mark.parametrize(("blocks", "batch_norm"), [(0, False), (2, False), (3, True)])
@pytest.mark.parametrize("block_convolutions", [1, 2])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_same_seed_gives_the_protocols_weights_and_logits(
    blocks: int, block_convolutions: int, batch_norm: bool, mode: str
) -> None:
    torch.manual_seed(5)
    expected = ProtocolNetwork(blocks, block_convolutions, batch_norm=batch_norm)
    torch.manual_seed(5)
    architecture = Architecture(
        blocks=blocks, block_convolutions=block_convolutions, batch_norm=batch_norm
    )
    network = BlockNetwork(architecture)
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    for module in (expected, network):
        module.train(mode == "train")
    assert torch.equal(network(images), expected(images))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_residual_block_of_one_convolution_adds_its_input_before_its_relu(
    batch_norm: bool, mode: str
) -> None:
    torch.manual_seed(5)
    block = ResidualBlock(convolutions=1, batch_norm=batch_norm).train(mode == "train")
    features = torch.randn(4, 8, 12, 12)
    before = features.clone()
    norm = block.get_submodule("first_norm") if batch_norm else nn.Identity()

    expected = torch.relu(features + norm(block.get_submodule("first_conv")(features)))

    assert torch.equal(block(features), expected)
    assert torch.equal(features, before)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_residual_block_adds_its_input_before_its_last_relu(batch_norm: bool, mode: str) -> None:
    torch.manual_seed(5)
    block = ResidualBlock(convolutions=2, batch_norm=batch_norm).train(mode == "train")
    features = torch.randn(4, 8, 12, 12)
    before = features.clone()
    norms = [
        block.get_submodule(f"{step}_norm") if batch_norm else nn.Identity()
        for step in ("first", "second")
    ]

    inner = torch.relu(norms[0](block.get_submodule("first_conv")(features)))
    expected = torch.relu(features + norms[1](block.get_submodule("second_conv")(inner)))

    assert torch.equal(block(features), expected)
    assert torch.equal(features, before)


@pytest.mark.parametrize("block_convolutions", [1, 2])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_residual_connections_change_no_weight(batch_norm: bool, block_convolutions: int) -> None:
    weights = []
    for residual in (False, True):
        torch.manual_seed(5)
        architecture = Architecture(
            blocks=2,
            block_convolutions=block_convolutions,
            batch_norm=batch_norm,
            residual=residual,
        )
        weights.append(BlockNetwork(architecture).state_dict())

    assert list(weights[0]) == list(weights[1])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_layers_have_names_that_say_what_they_are() -> None:
    network = BlockNetwork(Architecture(blocks=1, block_convolutions=2, batch_norm=True))
    assert [name for name, _ in network.named_parameters()] == [
        "head.widen.weight",
        "head.widen.bias",
        "head.halve.weight",
        "head.halve.bias",
        "blocks.0.first_conv.weight",
        "blocks.0.first_conv.bias",
        "blocks.0.first_norm.weight",
        "blocks.0.first_norm.bias",
        "blocks.0.second_conv.weight",
        "blocks.0.second_conv.bias",
        "blocks.0.second_norm.weight",
        "blocks.0.second_norm.bias",
        "tail.weight",
        "tail.bias",
        "classifier.hidden.weight",
        "classifier.hidden.bias",
        "classifier.output.weight",
    ]


def test_a_block_of_one_convolution_has_a_first_and_no_second() -> None:
    network = BlockNetwork(Architecture(blocks=1, batch_norm=True))
    assert [name for name, _ in network.blocks.named_parameters()] == [
        "0.first_conv.weight",
        "0.first_conv.bias",
        "0.first_norm.weight",
        "0.first_norm.bias",
    ]
