"""How activations and gradients pass a network, block by block."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.models.metrics import BlockDiagnosis
from leadline.models.network import BlockNetwork

DIAGNOSED_IMAGES = 512
"""Images that a diagnosis is made on: four of the protocol's batches."""


def diagnose(network: BlockNetwork, images: Tensor, labels: Tensor) -> tuple[BlockDiagnosis, ...]:
    """Measures what comes out of the head and of each block, and what comes back to it.

    Computed in float32 and in training mode: batch norms use the statistics of
    these images. Nothing of the network is changed: running statistics,
    gradients and modes stay as they are.

    The standard deviation is taken over the images at each channel, row and
    column for itself. Taken over all values at once it would count how far
    apart channels are, which their biases see to even where all images have
    become alike.

    Args:
        network: on the device of the images.
        images: float32 [N, 3, 32, 32], normalised.
        labels: int64 [N].

    Returns:
        one for the head and one for each block, in this order.
    """
    with _batch_statistics(network), torch.enable_grad():
        outputs = [network.head(images)]
        for block in network.blocks:
            outputs.append(block(outputs[-1]))
        logits = network.classifier(network.tail(outputs[-1]))
        loss = functional.cross_entropy(logits, labels)
        gradients = torch.autograd.grad(loss, outputs)
    with torch.no_grad():
        stds = [output.double().var(dim=0, correction=0).mean().sqrt() for output in outputs]
        norms = [torch.linalg.vector_norm(gradient.double()) for gradient in gradients]
        # One copy brings all of it over.
        measured = torch.stack([torch.stack(stds), torch.stack(norms)], dim=1).tolist()
    return tuple(
        BlockDiagnosis(block=number, activation_std=std, gradient_norm=norm)
        for number, (std, norm) in enumerate(measured)
    )


@contextmanager
def _batch_statistics(network: nn.Module) -> Iterator[None]:
    """Lets batch norms use the statistics of their input, and leave the running ones alone."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, (training, tracks) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, tracks
