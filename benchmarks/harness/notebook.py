"""The training loop of Leadline's original notebook, as a process controlled by its input.

It follows the notebook's protocol. A `DataLoader` with two workers transforms images one by one, in
every pass. After each epoch the loop classifies both splits in training mode, and builds autograd
graphs that it does not use. Its blocks compute two convolutions of the same input, and return only
the second. Each line on standard input starts an epoch; each line on standard output is its
duration in seconds.

    python -m harness.notebook CACHE FINGERPRINT --blocks 10 --batch-norm
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from harness.arithmetic import best_device
from leadline.models.datasets import Split, find_dataset
from leadline.models.network import Architecture, BlockNetwork

_BATCH_SIZE = 128
_LEARNING_RATE = 0.01
_LOADER_WORKERS = 2


class Images(TorchDataset[tuple[Tensor, int]]):
    """A split in the form of torchvision's datasets: PIL images, transformed on access."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
        )

    def __len__(self) -> int:
        return len(self._split.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image: Tensor = self._transform(Image.fromarray(self._split.images[index]))
        return image, int(self._split.labels[index])


class Block(nn.Module):
    """A block of the notebook, which overwrites the result of its first convolution.

    Leadline's block of one convolution computes the same function.
    """

    def __init__(self, *, batch_norm: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.bn1, self.bn2 = (nn.BatchNorm2d(8) if batch_norm else nn.Identity() for _ in range(2))
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Returns float32 features [batch, 8, 12, 12] for features of the same shape."""
        self.relu1(self.bn1(self.conv1(x)))
        result: Tensor = self.relu2(self.bn2(self.conv2(x)))
        return result


def main(arguments: Sequence[str]) -> int:
    """Trains an epoch for each line of standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cache", type=Path)
    parser.add_argument("fingerprint")
    parser.add_argument("--blocks", type=int, required=True)
    parser.add_argument("--batch-norm", action="store_true")
    options = parser.parse_args(arguments)
    device = best_device()
    dataset = find_dataset(options.fingerprint, options.cache)
    network = _network(options.blocks, batch_norm=options.batch_norm).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=_LEARNING_RATE)
    train, test = Images(dataset.train), Images(dataset.test)
    for _ in sys.stdin:
        started = time.perf_counter()
        _train(network, optimizer, train, device)
        accuracies = [_accuracy(network, split, device) for split in (train, test)]
        seconds = time.perf_counter() - started
        sys.stdout.write(json.dumps({"seconds": seconds, "accuracies": accuracies}) + "\n")
        sys.stdout.flush()
    return 0


def _network(blocks: int, *, batch_norm: bool) -> nn.Module:
    """Returns the notebook's network: Leadline's network with the notebook's blocks."""
    network = BlockNetwork(Architecture(blocks=0, batch_norm=batch_norm))
    network.blocks = nn.Sequential(*(Block(batch_norm=batch_norm) for _ in range(blocks)))
    return network


def _train(
    network: nn.Module, optimizer: torch.optim.Optimizer, split: Images, device: torch.device
) -> None:
    for images, labels in _loader(split, shuffle=True):
        optimizer.zero_grad()
        logits = network(images.to(device))
        loss = nn.functional.cross_entropy(logits, labels.to(device))
        loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
        optimizer.step()


def _accuracy(network: nn.Module, split: Images, device: torch.device) -> float:
    correct = 0
    for images, labels in _loader(split, shuffle=False):
        logits = network(images.to(device))
        correct += int((logits.argmax(dim=1) == labels.to(device)).sum().item())
    return correct / len(split)


def _loader(split: Images, *, shuffle: bool) -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(split, batch_size=_BATCH_SIZE, shuffle=shuffle, num_workers=_LOADER_WORKERS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
