"""Opens the dataset that a source's name stands for."""

import errno
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from leadline.models.datasets import cache
from leadline.models.datasets.archives import Folder, Tar
from leadline.models.datasets.cache import Progress, StaleCacheError
from leadline.models.datasets.cifar10 import Cifar10
from leadline.models.datasets.contents import Contents, Dataset, DatasetError, Item
from leadline.models.datasets.synthetic import Synthetic
from leadline.models.images import DEFAULT_MAX_PIXELS, DecodingStoppedError

SYNTHETIC = "synthetic"
TORCHVISION_CIFAR10 = "torchvision:cifar10"


class Source(Protocol):
    """Where a dataset comes from.

    The constructor raises a DatasetError if the source does not exist.
    """

    def key(self) -> str:
        """Returns a name that is safe in a path and changes when the contents change."""

    def read(self) -> Contents:
        """Returns the contents; iterating over the images decodes them."""


def check_source(source: str) -> None:
    """Checks that a source can be a dataset, without decoding images.

    Raises:
        DatasetError: the path is missing, not readable, or neither a folder nor a tar.
    """
    _find_source(source, Path(), DEFAULT_MAX_PIXELS)


@dataclass(frozen=True)
class SourceDescription:
    """The contents of a source, as known without decoding all of it."""

    class_names: tuple[str, ...]
    train_images: int
    test_images: int
    decoded: bool
    """Whether the cache has the dataset."""


def describe_source(
    source: str, cache_dir: Path, *, samples: int, max_pixels: int = DEFAULT_MAX_PIXELS
) -> SourceDescription | None:
    """Describes a source without writing to the cache. Blocks: reads all of a tar.

    Args:
        source: as for `open_dataset`.
        cache_dir: as for `open_dataset`.
        samples: images to decode, if the cache lacks the dataset.
        max_pixels: as for `open_dataset`.

    Returns:
        The description; None for a source that would have to be downloaded.

    Raises:
            DatasetError: the source cannot be read, is not a valid dataset, or one of
                the samples is not an image.
    """
    resolved = _find_source(source, cache_dir, max_pixels)
    try:
        try:
            dataset = cache.load_source(cache_dir, resolved.key())
        except StaleCacheError:
            return None if isinstance(resolved, Cifar10) else _sample(resolved.read(), samples)
    except OSError as error:
        raise DatasetError(f"the dataset {source!r} cannot be opened: {error}") from error
    return SourceDescription(
        class_names=dataset.class_names,
        train_images=len(dataset.train),
        test_images=len(dataset.test),
        decoded=True,
    )


def _sample(contents: Contents, samples: int) -> SourceDescription:
    deque(itertools.islice(contents.images, samples), maxlen=0)
    return SourceDescription(
        class_names=contents.class_names,
        train_images=len(contents.labels["train"]),
        test_images=len(contents.labels["test"]),
        decoded=False,
    )


def open_dataset(
    source: str,
    cache_dir: Path,
    *,
    progress: Progress | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Dataset:
    """Opens a dataset; decodes it first if the cache lacks it.

    Safe to call from several processes at once: one decodes, the others wait.

    Args:
        source: "synthetic", "torchvision:cifar10", or the path of a folder or tar.
        cache_dir: the folder of decoded datasets; created if it does not exist.
        progress: called about a hundred times while the dataset is decoded, with
            the number of decoded images and of all images.
        max_pixels: the most pixels, width times height, of an image.
        is_wanted: whether to continue; called at least before each image.

    Raises:
        DatasetError: the source cannot be read, or is not a valid dataset.
        DecodingStoppedError: `is_wanted` returned false. The cache is unchanged.
    """
    try:
        resolved = _find_source(source, cache_dir, max_pixels, is_wanted)
        key = resolved.key()
        try:
            return cache.load_source(cache_dir, key)
        except StaleCacheError:
            return _decode(resolved, cache_dir, key, progress, is_wanted)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DatasetError(
                f"the dataset {source!r} cannot be decoded into {cache_dir}: the disk is full; "
                "free some space, or name another folder"
            ) from error
        raise DatasetError(f"the dataset {source!r} cannot be opened: {error}") from error


def find_dataset(fingerprint: str, cache_dir: Path) -> Dataset:
    """Opens a dataset from the cache.

    Raises:
        DatasetError: the dataset is not in the cache, or damaged there.
    """
    try:
        return cache.load(cache_dir, fingerprint)
    except StaleCacheError as error:
        raise DatasetError(f"no dataset {fingerprint} is in the cache: {error}") from error


def describe_cache(cache_dir: Path) -> dict[str, str | None]:
    """Returns the fingerprint of each decoded dataset, with its error or None."""
    states: dict[str, str | None] = {}
    for fingerprint in cache.list_fingerprints(cache_dir):
        try:
            cache.load(cache_dir, fingerprint)
            states[fingerprint] = None
        except StaleCacheError as error:
            states[fingerprint] = str(error)
    return states


def _find_source(
    source: str, cache_dir: Path, max_pixels: int, is_wanted: Callable[[], bool] = lambda: True
) -> Source:
    if source == SYNTHETIC:
        return Synthetic()
    if source == TORCHVISION_CIFAR10:
        return Cifar10(cache_dir / "torchvision")
    try:
        path = Path(source).expanduser()
        kind = Folder if path.is_dir() else Tar
        return kind(path, max_pixels, is_wanted)
    except (OSError, RuntimeError) as error:
        raise DatasetError(f"the dataset {source!r} cannot be looked up: {error}") from error


def _decode(
    source: Source,
    cache_dir: Path,
    key: str,
    progress: Progress | None,
    is_wanted: Callable[[], bool],
) -> Dataset:
    with cache.locked(cache_dir, key):
        try:
            return cache.load_source(cache_dir, key)  # another process has just decoded it
        except StaleCacheError:
            contents = source.read()
            images = _while_wanted(contents.images, is_wanted)
            return cache.store(cache_dir, key, replace(contents, images=images), progress)


def _while_wanted(images: Iterator[Item], is_wanted: Callable[[], bool]) -> Iterator[Item]:
    for image in images:
        if not is_wanted():
            raise DecodingStoppedError
        yield image
