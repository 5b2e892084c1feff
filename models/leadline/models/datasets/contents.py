"""Datasets, before and after they are decoded."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

# "train" is for training and "test" for evaluation only.
SplitName = Literal["train", "test"]
SPLITS: tuple[SplitName, SplitName] = ("train", "test")

MIN_CLASSES = 2
MAX_CLASSES = 1_000


class DatasetError(Exception):
    """The dataset cannot be opened: the message says why, and what to do."""


@dataclass(frozen=True)
class Split:
    """Images with labels, in a fixed order: an index identifies an image."""

    images: npt.NDArray[np.uint8]
    """uint8 [N, 32, 32, 3], RGB; memory-mapped, read-only."""

    labels: npt.NDArray[np.int64]
    """int64 [N], each an index into the dataset's class names; read-only."""

    aspect_ratios: npt.NDArray[np.float32] | None = None
    """float32 [N], the width of each original image divided by its height; None if all were
    square, or if the ratios were not recorded."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A training set and a test set."""

    fingerprint: str
    """The SHA-256, in hexadecimal, of the class names and of every pixel and
    label in order. Equal contents have equal fingerprints, whether they come from a
    folder or a tar."""

    class_names: tuple[str, ...]
    """The classes' names, in the order of their labels."""

    train: Split
    test: Split


@dataclass(frozen=True)
class Item:
    """A decoded image, and its place in a dataset."""

    split: SplitName
    index: int
    """The image's index in the split."""
    pixels: npt.NDArray[np.uint8]
    """uint8 [32, 32, 3], RGB."""
    aspect_ratio: float = 1.0
    """The width of the original image divided by its height."""


@dataclass(frozen=True)
class Contents:
    """A dataset before it is decoded: its classes and labels, and an iterator of its images."""

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
