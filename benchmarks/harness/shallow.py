"""The networks whose accuracies `batch_size.py` compares, by name."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from leadline.models.initialization import initial_network
from leadline.models.network import Architecture
from leadline.models.spec import Initialization

__all__ = ["DEEP", "SHALLOW", "Network", "build", "features"]

DEEP = "2 blocks"
"""The notebook's best network without batch norm. The benchmark varies its batch size."""

Network = nn.Module
"""Maps float32 images [batch, 3, 32, 32] to logits [batch, 10]."""


class _ChannelsFirst(nn.Flatten):
    # Images are NHWC in memory, and a view of them cannot be flattened.
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.contiguous())


def _leadline(blocks: int) -> Callable[[int], Network]:
    architecture = Architecture(blocks=blocks, block_convolutions=1, batch_norm=False)
    return lambda seed: initial_network(architecture, Initialization.DEFAULT, seed)


def _seeded(layers: Callable[[], list[nn.Module]]) -> Callable[[int], Network]:
    def build_it(seed: int) -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(*layers())

    return build_it


def _strided() -> list[nn.Module]:
    return [
        *(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 5, stride=2), nn.ReLU()),
        *(_ChannelsFirst(), nn.Linear(8 * 12 * 12, 10)),
    ]


def _strided_without_relu() -> list[nn.Module]:
    return [layer for layer in _strided() if not isinstance(layer, nn.ReLU)]


def _pooled(first: int, second: int) -> Callable[[], list[nn.Module]]:
    return lambda: [
        *(nn.Conv2d(3, first, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(first, second, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(_ChannelsFirst(), nn.Linear(second * 5 * 5, 10)),
    ]


SHALLOW: dict[str, Callable[[int], Network]] = {
    DEEP: _leadline(2),
    "0 blocks": _leadline(0),
    "2 convolutions, no ReLU": _seeded(_strided_without_relu),
    "2 convolutions": _seeded(_strided),
    "2 convolutions, pooled, 6 and 16": _seeded(_pooled(6, 16)),
    "2 convolutions, pooled, 32 and 64": _seeded(_pooled(32, 64)),
}
"""Builders of networks from a seed. "2 blocks" and "0 blocks" are Leadline's, whose tail has 4 x 5
x 5 = 100 features before two linear layers. The others have one linear layer directly after two
convolutions of 5x5. Its input is the head's 8 x 12 x 12 = 1,152 features, or fewer after a max pool
of 2x2 behind each convolution."""


def build(name: str, seed: int) -> Network:
    """Returns a new network with PyTorch's default initialization.

    Args:
        name: one of `SHALLOW`.
        seed: the seed of its weights.

    Raises:
        KeyError: no network has this name.
    """
    return SHALLOW[name](seed)


def features(name: str) -> int:
    """Returns the number of input features of the network's first linear layer.

    Args:
        name: one of `SHALLOW`.
    """
    linear = [layer for layer in build(name, 0).modules() if isinstance(layer, nn.Linear)]
    return linear[0].in_features
