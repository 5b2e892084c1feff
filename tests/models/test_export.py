"""Exported networks compute the same as the networks."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from leadline.models.export import INPUT, LOGITS, PROBABILITIES, to_onnx
from leadline.models.network import Architecture, BlockNetwork


def trained(
    *,
    blocks: int,
    block_convolutions: int = 1,
    batch_norm: bool,
    residual: bool = False,
    classes: int = 10,
) -> BlockNetwork:
    """A network with trained weights and batch norms."""
    torch.manual_seed(0)
    network = BlockNetwork(
        Architecture(
            blocks=blocks,
            block_convolutions=block_convolutions,
            batch_norm=batch_norm,
            residual=residual,
            classes=classes,
        )
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        labels = torch.randint(classes, (16,))
        nn.functional.cross_entropy(network(torch.randn(16, 3, 32, 32)), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("block_convolutions", [1, 2])
@pytest.mark.parametrize("blocks", [0, 1, 10])
def test_an_exported_network_gives_the_same_scores(
    blocks: int, block_convolutions: int, batch_norm: bool, residual: bool
) -> None:
    network = trained(
        blocks=blocks,
        block_convolutions=block_convolutions,
        batch_norm=batch_norm,
        residual=residual,
    )
    images = torch.randn(7, 3, 32, 32)
    session = onnxruntime.InferenceSession(
        to_onnx(network.architecture, network.arrays()), providers=["CPUExecutionProvider"]
    )

    logits, probabilities = session.run([LOGITS, PROBABILITIES], {INPUT: images.numpy()})

    with torch.inference_mode():
        expected = network(images)
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(probabilities, expected.softmax(1).numpy(), atol=1e-5)


@pytest.mark.parametrize("block_convolutions", [1, 2])
def test_an_exported_network_is_valid_and_has_no_batch_norm_left(block_convolutions: int) -> None:
    network = trained(blocks=2, block_convolutions=block_convolutions, batch_norm=True, classes=3)
    model = onnx.load_from_string(to_onnx(network.architecture, network.arrays()))

    onnx.checker.check_model(model, full_check=True)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("Conv") == 2 + 2 * block_convolutions + 1
    assert "BatchNormalization" not in operators
    assert [one.dim_value for one in model.graph.output[0].type.tensor_type.shape.dim] == [0, 3]


@pytest.mark.parametrize("block_convolutions", [1, 2])
def test_a_residual_network_adds_once_a_block(block_convolutions: int) -> None:
    network = trained(
        blocks=3, block_convolutions=block_convolutions, batch_norm=True, residual=True
    )
    model = onnx.load_from_string(to_onnx(network.architecture, network.arrays()))

    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node].count("Add") == 3


def test_weights_of_another_architecture_are_refused() -> None:
    network = trained(blocks=1, batch_norm=False)
    deeper, shallower = (replace(network.architecture, blocks=blocks) for blocks in (2, 0))

    with pytest.raises(KeyError, match=r"blocks\.1\.first_conv\.weight"):
        to_onnx(deeper, network.arrays())
    with pytest.raises(ValueError, match=r"no place for blocks\.0\.first_conv\.bias"):
        to_onnx(shallower, network.arrays())


def test_equal_weights_make_equal_bytes() -> None:
    network = trained(blocks=2, batch_norm=True)
    backwards = dict(reversed(network.arrays().items()))

    first = to_onnx(network.architecture, network.arrays())

    assert to_onnx(network.architecture, backwards) == first
