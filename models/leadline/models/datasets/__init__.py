"""Labelled 32x32 images from wherever they are, decoded once and shared.

A source is named by a string: "synthetic" (drawn here, needs nothing),
"torchvision:cifar10" (downloaded on first use), or the path of a folder or a
tar with `train/CLASS/*.{png,jpg,jpeg}` and `test/CLASS/*` in it.
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
