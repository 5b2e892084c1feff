"""Exported networks on the vector engine, compared with torch, and bit for bit with each other."""

import itertools

import numpy as np
import onnx
import pytest
import torch

from leadline.models.export import to_onnx as export
from leadline.models.network import Architecture, BlockNetwork
from leadline.models.simd.inference import ExportedNetwork, Workspace
from leadline.models.simd.instruction_set import InstructionSet, available_instruction_sets
from leadline.models.simd.thread_team import ThreadTeam

VARIANTS = [
    Architecture(
        blocks=blocks,
        block_convolutions=block_convolutions,
        batch_norm=batch_norm,
        residual=residual,
        classes=classes,
    )
    for blocks, block_convolutions, batch_norm, residual, classes in itertools.product(
        (1, 3), (1, 2), (False, True), (False, True), (3, 10)
    )
] + [Architecture(blocks=0, batch_norm=False)]


def trained(architecture: Architecture) -> BlockNetwork:
    """A network with trained batch norms, in evaluation mode."""
    torch.manual_seed(1)
    network = BlockNetwork(architecture)
    with torch.no_grad():
        network(torch.randn(32, 3, 32, 32))
    return network.eval()


def to_onnx(network: BlockNetwork) -> bytes:
    return export(network.architecture, network.arrays())


def images(count: int) -> np.ndarray:
    random = np.random.default_rng(count)
    return random.uniform(-1, 1, (count, 3, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("architecture", VARIANTS, ids=str)
def test_logits_of_batches_of_any_size_are_those_of_torch(
    architecture: Architecture, threads: int, isa: InstructionSet
) -> None:
    network = trained(architecture)
    exported = ExportedNetwork(to_onnx(network), ThreadTeam(threads), isa)
    workspace = Workspace(largest_batch=40, threads=threads)
    for count in (1, 7, 8, 9, 31, 40, 3):
        batch = images(count)
        with torch.inference_mode():
            expected = network(torch.from_numpy(batch)).numpy()

        logits = exported.logits(batch, workspace)

        np.testing.assert_allclose(logits, expected, atol=2e-5)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("architecture", VARIANTS, ids=str)
def test_an_image_has_the_same_logits_wherever_it_lies_in_a_batch(
    architecture: Architecture, threads: int, isa: InstructionSet
) -> None:
    exported = ExportedNetwork(to_onnx(trained(architecture)), ThreadTeam(threads), isa)
    workspace = Workspace(largest_batch=40, threads=threads)
    batch = images(40)

    together = exported.logits(batch, workspace).copy()

    for start, end in ((0, 1), (5, 9), (39, 40), (3, 33)):
        alone = exported.logits(batch[start:end], workspace)
        np.testing.assert_array_equal(alone, together[start:end])


def test_a_workspace_that_is_too_small_is_refused(isa: InstructionSet) -> None:
    exported = ExportedNetwork(to_onnx(trained(VARIANTS[0])), ThreadTeam(3), isa)

    with pytest.raises(ValueError, match="a workspace of 2 threads is too small"):
        exported.logits(images(3), Workspace(largest_batch=8, threads=2))
    with pytest.raises(ValueError, match="could not broadcast"):
        exported.logits(images(40), Workspace(largest_batch=8, threads=3))


def test_a_network_of_other_shapes_is_refused() -> None:
    model = onnx.load_model_from_string(to_onnx(trained(VARIANTS[0])))
    (strides,) = (value for value in model.graph.node[1].attribute if value.name == "strides")
    strides.ints[:] = [1, 1]

    with pytest.raises(ValueError, match=r"halve has weights of the shape .* with stride \(1, 1\)"):
        ExportedNetwork(model.SerializeToString(), ThreadTeam(1))


def test_what_one_network_leaves_in_a_workspace_disturbs_no_other(isa: InstructionSet) -> None:
    first, second = (
        ExportedNetwork(to_onnx(trained(architecture)), ThreadTeam(1), isa)
        for architecture in (VARIANTS[0], VARIANTS[-1])
    )
    shared = Workspace(largest_batch=16, threads=1)
    huge = np.full((16, 3, 32, 32), 3e38, np.float32)

    expected = second.logits(images(3), Workspace(largest_batch=16, threads=1)).copy()
    first.logits(huge, shared)

    np.testing.assert_array_equal(second.logits(images(3), shared), expected)


@pytest.mark.skipif(
    InstructionSet.AVX512 not in available_instruction_sets(), reason="needs both sets"
)
@pytest.mark.parametrize("architecture", VARIANTS, ids=str)
def test_instruction_sets_with_fused_products_give_the_same_logits(
    architecture: Architecture,
) -> None:
    model, batch = to_onnx(trained(architecture)), images(19)

    narrow, wide = (
        ExportedNetwork(model, ThreadTeam(1), isa).logits(
            batch, Workspace(largest_batch=19, threads=1)
        )
        for isa in (InstructionSet.AVX2, InstructionSet.AVX512)
    )

    np.testing.assert_array_equal(narrow, wide)
