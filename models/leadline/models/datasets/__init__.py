"""Labelled 32x32 images from several sources, decoded once and shared by processes.

A string names a source: "synthetic" (drawn by this package),
"torchvision:cifar10" (downloaded on first use), or the path of a folder or a
tar that contains `train/CLASS/*.{png,jpg,jpeg}` and `test/CLASS/*`.
"""

from leadline.models.datasets.contents import Dataset, DatasetError, Split, SplitName
from leadline.models.datasets.sources import (
    SourceDescription,
    check_source,
    describe_cache,
    describe_source,
    find_dataset,
    open_dataset,
)

__all__ = [
    "Dataset",
    "DatasetError",
    "SourceDescription",
    "Split",
    "SplitName",
    "check_source",
    "describe_cache",
    "describe_source",
    "find_dataset",
    "open_dataset",
]
