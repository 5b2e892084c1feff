"""What a dataset is, wherever it comes from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

# The images that a network learns from, and those that it never sees while it does.
SplitName = Literal["train", "test"]
SPLITS: tuple[SplitName, SplitName] = ("train", "test")

MIN_CLASSES = 2
MAX_CLASSES = 1_000


class DatasetError(Exception):
    """The dataset cannot be had: the message says why, and what to do about it."""


@dataclass(frozen=True)
class Split:
    """Images with labels, in a fixed order: an image's index is its name."""

    images: npt.NDArray[np.uint8]
    """uint8 [N, 32, 32, 3], RGB; memory-mapped, read-only."""

    labels: npt.NDArray[np.int64]
    """int64 [N], each an index into the dataset's class names; read-only."""

    aspect_ratios: npt.NDArray[np.float32] | None = None
    """float32 [N], the width of each image by its height, before it was resized; None where
    all were square, or where this was not kept."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """What to train on, and what to be measured on."""

    fingerprint: str
    """The SHA-256, in hexadecimal, of the class names and of every pixel and
    label in order: equal contents have equal fingerprints, whatever they were
    packed in."""

    class_names: tuple[str, ...]
    """The classes' names, in the order of their labels."""

    train: Split
    test: Split


@dataclass(frozen=True)
class Item:
    """An image on its way into a dataset."""

    split: SplitName
    index: int
    """Its place in the split."""
    pixels: npt.NDArray[np.uint8]
    """uint8 [32, 32, 3], RGB."""
    aspect_ratio: float = 1.0
    """The width by the height, before it was resized."""


@dataclass(frozen=True)
class Contents:
    """All of a dataset before it is decoded: its classes and labels, and its images in turn."""

    class_names: tuple[str, ...]
    labels: dict[SplitName, npt.NDArray[np.int64]]
    images: Iterator[Item]
    """Each image of each split once, in any order."""

    def __post_init__(self) -> None:
        if not MIN_CLASSES <= len(self.class_names) <= MAX_CLASSES:
            raise DatasetError(
                f"a dataset has {MIN_CLASSES} to {MAX_CLASSES:,} classes, "
                f"but this one has {len(self.class_names):,}"
            )
        for split, labels in self.labels.items():
            if not len(labels):
                raise DatasetError(f"the {split} split has no images")
