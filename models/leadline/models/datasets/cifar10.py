"""CIFAR-10 (Krizhevsky, 2009) as torchvision downloads it."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from leadline.models.datasets.contents import SPLITS, Contents, DatasetError, Item, SplitName


class Cifar10:
    """The 60,000 images in the order of the original files.

    torchvision checks the download against a known MD5 before it reads it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def key(self) -> str:
        """Returns a constant: the original never changes."""
        return "torchvision-cifar10"

    def read(self) -> Contents:
        """Downloads the images if they are missing.

        Raises:
            DatasetError: torchvision is missing, or the download failed.
        """
        splits = {split: self._load(split) for split in SPLITS}
        labels = {split: np.array(splits[split].targets, dtype=np.int64) for split in SPLITS}
        images = itertools.chain.from_iterable(_items(split, splits[split]) for split in SPLITS)
        return Contents(tuple(splits["train"].classes), labels, images)

    def _load(self, split: SplitName) -> Any:
        try:
            # Only this dataset needs torchvision.
            from torchvision.datasets import CIFAR10  # noqa: PLC0415

            return CIFAR10(self._folder, train=split == "train", download=True)
        except (ImportError, OSError, RuntimeError) as error:
            raise DatasetError(
                f"torchvision could not download CIFAR-10: {error}. Without a network, start "
                "the server with an archive of train/CLASS/* and test/CLASS/* images: "
                "leadline serve --dataset cifar10=PATH"
            ) from error


def _items(split: SplitName, images: Any) -> Iterator[Item]:
    for index, pixels in enumerate(images.data):
        yield Item(split, index, pixels)
