"""Measures activations and gradients, block by block."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.models.metrics import BlockDiagnosis
from leadline.models.network import BlockNetwork

DIAGNOSED_IMAGES = 512
"""Images of a diagnosis: four batches of the training protocol."""


def diagnose(network: BlockNetwork, images: Tensor, labels: Tensor) -> tuple[BlockDiagnosis, ...]:
    """Measures the outputs of the head and of each block, and the gradients of these outputs.

    Computes in float32 and in training mode: batch norms use the statistics of
    these images. The network's running statistics, gradients and modes do not
    change.

    The standard deviation is over the images, separately at each channel, row and
    column. A standard deviation over all values would include the differences
    between channels, which biases cause even if all images have become alike.

    Args:
        network: on the device of the images.
        images: float32 [N, 3, 32, 32], normalised.
        labels: int64 [N].

    Returns:
        The diagnosis of the head and of each block, in this order.
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
        # A single copy from the device.
        measured = torch.stack([torch.stack(stds), torch.stack(norms)], dim=1).tolist()
    return tuple(
        BlockDiagnosis(block=number, activation_std=std, gradient_norm=norm)
        for number, (std, norm) in enumerate(measured)
    )


@contextmanager
def _batch_statistics(network: nn.Module) -> Iterator[None]:
    """Makes batch norms use the statistics of their input, without updating the running ones."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, (training, tracks) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, tracks
