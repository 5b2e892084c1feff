"""Reads images of the server's datasets by resource name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadline.models.datasets import DatasetError, Split, SplitName, find_dataset
from leadline.models.images import IMAGE_SIZE
from leadline.models.spec import Violation
from leadline.server.errors import InvalidArgumentError

FIELD = "examples.names"
"""The request field of image names, for error messages."""


@dataclass(frozen=True, kw_only=True)
class ExampleRef:
    """One image of a dataset."""

    fingerprint: str
    split: SplitName
    index: int

    @property
    def name(self) -> str:
        """The resource name, "datasets/{fingerprint}/{split}/{index}"."""
        return f"datasets/{self.fingerprint}/{self.split}/{self.index}"


def read_examples(examples: Sequence[ExampleRef], dataset_cache: Path) -> NDArray[np.uint8]:
    """The pixels of images, uint8 NHWC [images, 32, 32, 3], in order. Blocks.

    Raises:
        InvalidArgumentError: an image is not on this server; the error has the indices.
    """
    splits: dict[tuple[str, SplitName], Split | None] = {}
    pixels = np.empty((len(examples), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    violations = []
    for position, example in enumerate(examples):
        key = example.fingerprint, example.split
        if key not in splits:
            splits[key] = _find(example, dataset_cache)
        split = splits[key]
        if split is not None and example.index < len(split):
            pixels[position] = split.images[example.index]
        else:
            description = _missing(example, split)
            violations.append(Violation(field=f"{FIELD}[{position}]", description=description))
    if violations:
        raise InvalidArgumentError(violations, reason="INVALID_IMAGE")
    return pixels


def _find(example: ExampleRef, dataset_cache: Path) -> Split | None:
    try:
        dataset = find_dataset(example.fingerprint, dataset_cache)
    except DatasetError:
        return None
    return dataset.train if example.split == "train" else dataset.test


def _missing(example: ExampleRef, split: Split | None) -> str:
    if split is None:
        return f"this server has no dataset {example.fingerprint}: send the image itself"
    return f"the {example.split} images are 0 to {len(split) - 1}, there is no {example.index}"
