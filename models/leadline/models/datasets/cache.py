"""Caches decoded datasets on disk, as files that processes map into memory.

    CACHE/<fingerprint>/dataset.json        the description of the files
    CACHE/<fingerprint>/train-images.npy    uint8 [N, 32, 32, 3]
    CACHE/<fingerprint>/train-labels.npy    int64 [N]
    CACHE/<fingerprint>/train-aspect-ratios.npy
                                            float32 [N], unless all images are square
    CACHE/<fingerprint>/test-...            likewise
    CACHE/sources/<key>.json                the fingerprint of a source's dataset
    CACHE/sources/<key>.lock                held while a source is decoded

A folder gets its name when all its files are on disk, so a crash never leaves
an incomplete dataset.
"""

import fcntl
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from leadline.models._files import sync_folder, write_atomically
from leadline.models.datasets.arrays import (
    ImageFile,
    array_path,
    fingerprint_of,
    load_split,
    write_aspect_ratios,
    write_labels,
)
from leadline.models.datasets.contents import SPLITS, Contents, Dataset, DatasetError

FORMAT = 1

Progress = Callable[[int, int], None]

_DESCRIPTION = "dataset.json"
_REQUIRED: tuple[Literal["images", "labels"], ...] = ("images", "labels")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class StaleCacheError(Exception):
    """A dataset is missing from the cache, or damaged there."""


def load(cache_dir: Path, fingerprint: str) -> Dataset:
    """Opens a decoded dataset without reading its images.

    Raises:
        StaleCacheError: the dataset is missing or incomplete.
    """
    # A fingerprint may come from a file or a caller, and becomes a path here.
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise StaleCacheError(f"{fingerprint!r} is not a fingerprint")
    folder = cache_dir / fingerprint
    try:
        description = json.loads((folder / _DESCRIPTION).read_bytes())
        _check(folder, description)
        class_names = tuple(description["class_names"])
        train, test = (load_split(folder, split, len(class_names)) for split in SPLITS)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise StaleCacheError(f"{folder}: {error}") from error
    return Dataset(fingerprint=fingerprint, class_names=class_names, train=train, test=test)


def list_fingerprints(cache_dir: Path) -> list[str]:
    """Returns the fingerprints of all datasets in the cache, including damaged ones."""
    if not cache_dir.is_dir():
        return []
    names = (path.name for path in cache_dir.iterdir() if path.is_dir())
    return sorted(name for name in names if _FINGERPRINT.fullmatch(name))


def load_source(cache_dir: Path, key: str) -> Dataset:
    """Opens the dataset of a source from the cache.

    Raises:
        StaleCacheError: the source is not in the cache, or its dataset is incomplete.
    """
    path = _source_path(cache_dir, key)
    try:
        fingerprint = json.loads(path.read_bytes())["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StaleCacheError(f"{path}: {error}") from error
    return load(cache_dir, str(fingerprint))


@contextmanager
def locked(cache_dir: Path, name: str) -> Iterator[None]:
    """Holds a lock that excludes other processes and threads; waits until it is free."""
    path = _source_path(cache_dir, name).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The file stays. If it were removed, a third process could lock a new file of its name.
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def store(cache_dir: Path, key: str, contents: Contents, progress: Progress | None) -> Dataset:
    """Decodes a source into the cache. The caller holds the source's lock.

    Raises:
        DatasetError: an image cannot be decoded.
        OSError: the cache cannot be written.
    """
    building = cache_dir / f".building-{key}"
    shutil.rmtree(building, ignore_errors=True)  # left by a process that crashed
    building.mkdir(parents=True)
    try:
        _write_arrays(building, contents, progress)
        fingerprint = fingerprint_of(building, contents.class_names)
        _write_description(building, fingerprint, contents)
        dataset = _publish(building, cache_dir, fingerprint)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    record = {"format": FORMAT, "fingerprint": fingerprint}
    write_atomically(_source_path(cache_dir, key), _to_json(record))
    return dataset


def _write_arrays(folder: Path, contents: Contents, progress: Progress | None) -> None:
    total = sum(len(labels) for labels in contents.labels.values())
    step = max(1, total // 100)
    done = 0
    ratios = {split: np.ones(len(contents.labels[split]), np.float32) for split in SPLITS}
    with ExitStack() as stack:
        files = {
            split: stack.enter_context(ImageFile(folder, split, len(contents.labels[split])))
            for split in SPLITS
        }
        for done, item in enumerate(contents.images, start=1):
            files[item.split].write(item.index, item.pixels)
            ratios[item.split][item.index] = item.aspect_ratio
            if progress is not None and (done % step == 0 or done == total):
                progress(done, total)
    if done != total:
        raise DatasetError(
            f"the dataset changed while it was read: {done:,} of {total:,} images were there"
        )
    for split in SPLITS:
        write_labels(folder, split, contents.labels[split])
        write_aspect_ratios(folder, split, ratios[split])


def _write_description(folder: Path, fingerprint: str, contents: Contents) -> None:
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    description = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "class_names": list(contents.class_names),
        "images": {split: len(contents.labels[split]) for split in SPLITS},
        "file_sizes": sizes,
    }
    write_atomically(folder / _DESCRIPTION, _to_json(description))


def _publish(building: Path, cache_dir: Path, fingerprint: str) -> Dataset:
    """Renames the folder to its fingerprint, unless that dataset exists."""
    with locked(cache_dir, "publish"):
        try:
            return load(cache_dir, fingerprint)
        except StaleCacheError:
            final = cache_dir / fingerprint
            shutil.rmtree(final, ignore_errors=True)
            building.rename(final)
            sync_folder(cache_dir)
            return load(cache_dir, fingerprint)


def _check(folder: Path, description: dict[str, Any]) -> None:
    if description["format"] != FORMAT or description["fingerprint"] != folder.name:
        raise ValueError("the description is of another format or dataset")
    sizes = description["file_sizes"]
    for name in sizes.keys() | {array_path(folder, s, k).name for s in SPLITS for k in _REQUIRED}:
        if (folder / name).stat().st_size != sizes[name]:
            raise ValueError(f"the size of {name} has changed since it was written")


def _source_path(cache_dir: Path, key: str) -> Path:
    return cache_dir / "sources" / f"{key}.json"


def _to_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
