"""The arithmetic of an epoch, and the arithmetic that the machine can do."""

import time

import torch
from torch import Tensor, nn

from leadline.models.network import Architecture, BlockNetwork

_TRIES = 20


def epoch_operations(architecture: Architecture, *, train_images: int, test_images: int) -> float:
    """Returns the floating-point operations of an epoch with both its evaluations.

    A multiply-add of a convolution or a linear layer counts as two; padding and all other layers do
    not count. The backward pass costs twice the forward pass, except in the first layer, whose
    input needs no gradient.
    """
    network = BlockNetwork(architecture)
    counts: list[float] = []

    def count(module: nn.Module, inputs: tuple[Tensor], _: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            inside = nn.functional.conv2d(
                torch.ones_like(inputs[0]),
                torch.ones_like(module.weight),
                stride=module.stride,
                padding=module.padding,
            )
            counts.append(2 * float(inside.sum()))
        elif isinstance(module, nn.Linear):
            counts.append(2 * float(module.weight.numel()))

    for module in network.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    there = sum(counts)
    step = 3 * there - counts[0]
    return train_images * step + (train_images + test_images) * there


def attainable_operations(device: torch.device) -> float:
    """Returns the operations per second of the fastest of several large float32 matrix products."""
    size = 8192 if device.type == "cuda" else 2048
    torch.backends.cuda.matmul.allow_tf32 = False
    left, right = (torch.rand(size, size, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(_TRIES):
        _wait(device)
        started = time.perf_counter()
        left @ right
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def best_device() -> torch.device:
    """Returns the GPU if there is one, otherwise the CPU, like servers and the notebook's loop."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """Returns the device's name for tables."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
