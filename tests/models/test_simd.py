"""The convolutions of the vector engine, compared with torch's in float64."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.models.batches import normalize
from leadline.models.engine import Engine, SimdEngine, TorchEngine
from leadline.models.network import Architecture, BlockNetwork
from leadline.models.simd.instruction_set import InstructionSet

VARIANTS = [
    Architecture(
        blocks=blocks,
        block_convolutions=block_convolutions,
        batch_norm=batch_norm,
        residual=residual,
    )
    for blocks, block_convolutions, batch_norm, residual in itertools.product(
        (1, 3), (1, 2), (False, True), (False, True)
    )
] + [Architecture(blocks=0, batch_norm=batch_norm) for batch_norm in (False, True)]


# In float32, an input of a ReLU this close to zero may have either sign.
KINK = 1e-5


def network_of(architecture: Architecture, seed: int = 0) -> BlockNetwork:
    torch.manual_seed(seed)
    return BlockNetwork(architecture)


def batch_of(images: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (images, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return pixels, torch.randint(0, 10, (images,), generator=generator)


def engine_of(
    network: BlockNetwork, isa: InstructionSet, threads: int = 1, largest_batch: int = 64
) -> SimdEngine:
    return SimdEngine(network, largest_batch=largest_batch, threads=threads, isa=isa)


def gradients_of(network: BlockNetwork) -> dict[str, Tensor]:
    found = {name: value.grad for name, value in network.named_parameters()}
    return {name: value.clone() for name, value in found.items() if value is not None}


def distance(found: Tensor, exact: Tensor) -> float:
    """Returns the norm of the difference relative to the norm of the exact values."""
    return float((found.double() - exact).norm() / (exact.norm() + 1e-12))


def exact_network_of(
    architecture: Architecture, pixels: Tensor, labels: Tensor, threshold: float
) -> BlockNetwork:
    """Returns the network in float64, with the gradients for ReLUs that open at a threshold.

    If the input of a ReLU is nearly zero, rounding decides whether its gradient passes, and
    processors round differently. Thresholds next to zero show how much that can change.
    """
    exact = network_of(architecture).double()
    for part in (*exact.blocks, exact.classifier):
        for name, layer in list(part.named_children()):
            if isinstance(layer, nn.ReLU):
                part.add_module(name, nn.Threshold(threshold, 0.0))
    loss = functional.cross_entropy(exact(normalize(pixels).double()), labels)
    loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
    return exact


@pytest.mark.parametrize("images", [1, 7, 16, 37, 64])
@pytest.mark.parametrize("architecture", VARIANTS, ids=str)
def test_gradients_are_as_exact_as_those_of_torch(
    architecture: Architecture, images: int, isa: InstructionSet
) -> None:
    network = network_of(architecture)
    pixels, labels = batch_of(images)
    exact, lower, upper = (
        exact_network_of(architecture, pixels, labels, threshold)
        for threshold in (0.0, -KINK, KINK)
    )

    loss = engine_of(network, isa).gradients(pixels, labels)

    logits = network_of(architecture).double()(normalize(pixels).double())
    assert float(loss) == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-5)
    found, expected = gradients_of(network), gradients_of(exact)
    assert list(found) == list(expected)
    for name, value in expected.items():
        if architecture.batch_norm and name.endswith("conv.bias"):
            assert not found[name].any(), name  # the batch norm subtracts it
            continue
        kinks = max(distance(gradients_of(other)[name], value) for other in (lower, upper))
        assert distance(found[name], value) <= 2e-5 + 2 * kinks, name
    for name, value in exact.named_buffers():
        assert torch.allclose(network.get_buffer(name).double(), value.double(), atol=1e-5), name


@pytest.mark.parametrize("architecture", VARIANTS, ids=str)
def test_logits_agree_with_torch_in_evaluation_mode(
    architecture: Architecture, isa: InstructionSet
) -> None:
    network = network_of(architecture)
    engine = engine_of(network, isa)
    for step in range(3):
        engine.gradients(*batch_of(50, seed=step))
    pixels, _ = batch_of(77, seed=9)
    engine.prepare()
    expected = TorchEngine(copy.deepcopy(network)).logits(pixels)
    assert torch.allclose(engine.logits(pixels), expected, atol=1e-5)
    assert torch.allclose(engine.logits(pixels[:3]), expected[:3], atol=1e-5)


@pytest.mark.parametrize("block_convolutions", [1, 2])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_twenty_steps_leave_the_weights_of_the_plain_loop(
    batch_norm: bool, block_convolutions: int, isa: InstructionSet
) -> None:
    architecture = Architecture(
        blocks=2, block_convolutions=block_convolutions, batch_norm=batch_norm
    )
    networks = [network_of(architecture, seed=4) for _ in range(2)]
    engines: list[Engine] = [engine_of(networks[0], isa), TorchEngine(networks[1])]
    for network, engine in zip(networks, engines, strict=True):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        for step in range(20):
            engine.gradients(*batch_of(64 if step < 19 else 40, seed=step))
            optimizer.step()
    found, expected = (network.state_dict() for network in networks)
    for name, value in expected.items():
        # Rounding decides the ReLU of a value that a batch norm has made nearly zero.
        atol = 1e-3 if batch_norm and not name.endswith("tracked") else 1e-6
        assert torch.allclose(found[name], value, atol=atol), name


@pytest.mark.parametrize("block_convolutions", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_number_of_threads_changes_no_bit(
    batch_norm: bool, residual: bool, block_convolutions: int, isa: InstructionSet
) -> None:
    architecture = Architecture(
        blocks=2,
        block_convolutions=block_convolutions,
        batch_norm=batch_norm,
        residual=residual,
    )
    results = []
    for threads in (1, 2, 5):
        network = network_of(architecture)
        engine = engine_of(network, isa, threads)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for step, images in enumerate((53, 20, 64, 7)):
            engine.gradients(*batch_of(images, seed=step))
            optimizer.step()
        engine.prepare()
        results.append([*network.state_dict().values(), engine.logits(batch_of(33)[0])])
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert torch.equal(first, second)


def test_a_network_that_was_loaded_later_is_computed(isa: InstructionSet) -> None:
    architecture = Architecture(blocks=1, batch_norm=True)
    network, other = network_of(architecture), network_of(architecture, seed=5)
    engine = engine_of(network, isa)
    network.load_state_dict(other.state_dict())
    engine.gradients(*batch_of(20))
    expected = engine_of(other, isa)
    expected.gradients(*batch_of(20))
    for name, value in gradients_of(other).items():
        assert torch.equal(gradients_of(network)[name], value), name


def test_a_batch_that_exceeds_the_largest_is_refused(isa: InstructionSet) -> None:
    engine = engine_of(network_of(VARIANTS[0]), isa, largest_batch=16)
    with pytest.raises(ValueError, match="a batch of 33 images exceeds the largest batch, 16"):
        engine.gradients(*batch_of(33))


def test_what_is_not_a_number_stays_so(isa: InstructionSet) -> None:
    network = network_of(Architecture(blocks=2, batch_norm=False))
    with torch.no_grad():
        network.get_parameter("head.widen.weight")[0, 0, 0, 0] = float("nan")
    assert engine_of(network, isa).gradients(*batch_of(8)).isnan()
