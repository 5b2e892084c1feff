"""Images of datasets that the server has, by their names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadline.models.datasets import Dataset, DatasetError, SplitName, find_dataset
from leadline.models.images import IMAGE_SIZE
from leadline.server.errors import NotFoundError


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
    """The pixels of images, uint8 [images, 32, 32, 3], in their order. Blocks.

    Raises:
        NotFoundError: one is of no dataset that is here, or of none of its images.
    """
    pixels = np.empty((len(examples), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    datasets: dict[str, Dataset] = {}
    for position, example in enumerate(examples):
        if example.fingerprint not in datasets:
            datasets[example.fingerprint] = _find(example, dataset_cache)
        dataset = datasets[example.fingerprint]
        split = dataset.train if example.split == "train" else dataset.test
        if example.index >= len(split):
            raise NotFoundError(
                "example", example.name, f"the split has the images 0 to {len(split) - 1}"
            )
        pixels[position] = split.images[example.index]
    return pixels


def _find(example: ExampleRef, dataset_cache: Path) -> Dataset:
    try:
        return find_dataset(example.fingerprint, dataset_cache)
    except DatasetError as error:
        raise NotFoundError(
            "example", example.name, "this server has no such dataset: send the image itself"
        ) from error
