"""Finds the images of a folder or tar, with their classes and indices."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from leadline.models.datasets.contents import SPLITS, Contents, DatasetError, Item, SplitName

LAYOUT = "train/CLASS/*.png or *.jpg, and test/CLASS/* likewise"

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
_NAMED_AT_MOST = 5

# In all paths together: several copies of them are in memory while a dataset is decoded.
_MAX_PATH_CHARACTERS = 1 << 27


@dataclass(frozen=True)
class Place:
    """An image's split and index in a dataset."""

    split: SplitName
    index: int


class _Entry(NamedTuple):
    """The parts of an image file's path; sorts by class, then by file name."""

    class_name: str
    file_name: str
    split: SplitName
    prefix: str
    path: str


class Listing:
    """The images among the files of a folder or tar, in any order.

    Skips other files, hidden files and files outside the layout. Sorts the images
    by class, then by file name: so an index does not depend on the order in the tar.

    Raises:
        DatasetError: the images do not form a dataset.
    """

    def __init__(self, source: str, paths: Iterable[str]) -> None:
        self._source = source
        entries = list(self._entries(paths))
        if not entries:
            raise DatasetError(f"{source} contains no images; expected {LAYOUT}")
        if len({entry.prefix for entry in entries}) > 1:
            raise DatasetError(f"{source} contains more than one folder that has train or test")
        names = {(entry.split, entry.class_name, entry.file_name) for entry in entries}
        if len(names) < len(entries):
            raise DatasetError(f"{source} contains a file twice")
        self._splits = {
            split: sorted(entry for entry in entries if entry.split == split) for split in SPLITS
        }
        self.class_names = self._check_classes()
        self.places = {
            entry.path: Place(split, index)
            for split, sorted_entries in self._splits.items()
            for index, entry in enumerate(sorted_entries)
        }

    def contents(self, images: Iterator[Item]) -> Contents:
        """Returns the contents of a dataset with these labels and images."""
        labels = {name: label for label, name in enumerate(self.class_names)}
        return Contents(
            class_names=self.class_names,
            labels={
                split: np.array([labels[entry.class_name] for entry in entries], dtype=np.int64)
                for split, entries in self._splits.items()
            },
            images=images,
        )

    def _entries(self, paths: Iterable[str]) -> Iterator[_Entry]:
        room = _MAX_PATH_CHARACTERS
        for path in paths:
            entry = _parse(path)
            if entry is not None:
                room -= len(path)
                if room < 0:
                    raise DatasetError(
                        f"the names of the images in {self._source} have more than "
                        f"{_MAX_PATH_CHARACTERS:,} characters: use shorter ones"
                    )
                yield entry

    def _check_classes(self) -> tuple[str, ...]:
        classes = {
            split: {entry.class_name for entry in entries}
            for split, entries in self._splits.items()
        }
        for split in SPLITS:
            if not classes[split]:
                raise DatasetError(f"{self._source} has no {split} images; expected {LAYOUT}")
        one_sided = sorted(classes["train"] ^ classes["test"])
        if one_sided:
            raise DatasetError(
                f"{self._source} has classes in only one of train and test: {_some(one_sided)}"
            )
        unprintable = [ascii(name) for name in classes["train"] if not name.isprintable()]
        if unprintable:
            raise DatasetError(
                f"{self._source} has class names that are not text: {unprintable[0]}"
            )
        return tuple(sorted(classes["train"]))


def _parse(path: str) -> _Entry | None:
    """Returns the entry of a path [PREFIX/]SPLIT/CLASS/FILE, None for any other path."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or pure.name.startswith("."):
        return None
    match pure.parts:
        case (("train" | "test") as split, class_name, file_name):
            prefix = ""
        case (prefix, ("train" | "test") as split, class_name, file_name):
            pass
        case _:
            return None
    if pure.suffix.lower() not in _SUFFIXES:
        return None
    return _Entry(class_name, file_name, split, prefix, path)


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more:,} more" if more > 0 else "")
