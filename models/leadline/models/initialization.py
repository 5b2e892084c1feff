"""Draws the initial weights of a network."""

import math

import torch
from torch import nn

from leadline.models.network import Architecture, BlockNetwork, ResidualBlock
from leadline.models.spec import Initialization


def initial_network(
    architecture: Architecture, initialization: Initialization, seed: int
) -> BlockNetwork:
    """Returns a network on the CPU with its initial weights.

    The seed and the initialisation determine every weight, for any device. The
    state of torch's global generator does not change.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BlockNetwork(architecture)
        if initialization is Initialization.KAIMING:
            _draw_kaiming(network)
    return network


@torch.no_grad()
def _draw_kaiming(network: BlockNetwork) -> None:
    """Draws the weights of every convolution and linear layer, in the order of the layers.

    Weights are normal with a mean of 0. Their variance is 2 / fan in if a ReLU
    follows the layer, else 1 / fan in: in the convolutions of the head and the
    tail, and in the classifier's last layer. Biases are 0. Batch norms do not
    change.

    In a residual network the variance of the last convolution of each block is
    divided by the number of blocks. The sum of all blocks is then as large as
    the head's output; without this, the variance would double in each block.

    Sources: He et al. (2015), "Delving Deep into Rectifiers: Surpassing
    Human-Level Performance on ImageNet Classification", section 2.2; for the
    residual networks Hayou et al. (2021), "Stable ResNet", section 3.
    """
    gains = {network.classifier.get_submodule("hidden"): 2.0}
    for block in network.blocks:
        convolutions = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
        gains.update(dict.fromkeys(convolutions, 2.0))
        if isinstance(block, ResidualBlock):
            gains[convolutions[-1]] /= len(network.blocks)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            variance = gains.get(layer, 1.0) / layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=math.sqrt(variance))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
