"""Captured graphs on a GPU, compared with torch's own steps."""

import pytest
import torch

from leadline.models.batches import normalize
from leadline.models.cuda import CudaEngine
from leadline.models.engine import Engine, TorchEngine
from leadline.models.network import Architecture, BlockNetwork

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def network_of(architecture: Architecture) -> BlockNetwork:
    torch.manual_seed(0)
    return BlockNetwork(architecture).to("cuda")


def batch_of(images: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (images, 32, 32, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (images,), generator=generator)
    return pixels.to("cuda"), labels.to("cuda")


@pytest.mark.parametrize("block_convolutions", [1, 2])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_steps_and_logits_agree_with_torch(
    batch_norm: bool, autocast: torch.dtype | None, block_convolutions: int
) -> None:
    architecture = Architecture(
        blocks=2, block_convolutions=block_convolutions, batch_norm=batch_norm
    )
    networks = [network_of(architecture) for _ in range(2)]
    engines: list[Engine] = [CudaEngine(networks[0], autocast), TorchEngine(networks[1], autocast)]
    losses = []
    for network, engine in zip(networks, engines, strict=True):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        for step in range(5):
            losses.append(engine.gradients(*batch_of(64 if step < 4 else 40, seed=step)))
            optimizer.step()
    atol = 1e-5 if autocast is None else 1e-2
    assert torch.allclose(torch.stack(losses[:5]), torch.stack(losses[5:]), atol=atol)
    actual, expected = (network.state_dict() for network in networks)
    for name, value in expected.items():
        assert torch.allclose(actual[name], value, atol=atol), name
    pixels, _ = batch_of(30, seed=9)
    engines[0].prepare()
    networks[0].eval()
    with torch.no_grad():
        plain = networks[0](normalize(pixels))
    assert torch.allclose(engines[0].logits(pixels), plain, atol=1e-5)
