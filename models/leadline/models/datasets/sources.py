"""From a source's name to the dataset that it stands for."""

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

    One that does not exist cannot be made: the constructor raises a DatasetError.
    """

    def key(self) -> str:
        """Returns a name, safe in a path, that changes when the contents do."""

    def read(self) -> Contents:
        """Returns the contents; images are decoded as they are iterated over."""


def check_source(source: str) -> None:
    """Checks, without decoding anything, that a source can be a dataset.

    Raises:
        DatasetError: no such file or folder, not readable, or neither a folder nor a tar.
    """
    _find_source(source, Path(), DEFAULT_MAX_PIXELS)


@dataclass(frozen=True)
class SourceDescription:
    """What a source has, as far as that is known without decoding all of it."""

    class_names: tuple[str, ...]
    train_images: int
    test_images: int
    decoded: bool
    """Whether the cache has it."""


def describe_source(
    source: str, cache_dir: Path, *, samples: int, max_pixels: int = DEFAULT_MAX_PIXELS
) -> SourceDescription | None:
    """Describes a source, and writes nothing. Blocks: of a tar, all is read.

    Args:
        source: as for `open_dataset`.
        cache_dir: likewise.
        samples: images to decode, where none is decoded yet.
        max_pixels: as for `open_dataset`.

    Returns:
        The description; None for a source that would have to be downloaded.

    Raises:
        DatasetError: it cannot be read, is not as a dataset should be, or one
            of the samples is no image.
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
    """Opens a dataset, and decodes it first where no process has done so yet.

    Safe to call from several processes at once: one decodes, the others wait.

    Args:
        source: "synthetic", "torchvision:cifar10", or the path of a folder or tar.
        cache_dir: where decoded datasets are kept; made where it does not exist.
        progress: called with the images done and the images in all, about a
            hundred times, while the dataset is decoded.
        max_pixels: width times height above which an image is refused.
        is_wanted: whether to go on; called before each image, and more often.

    Raises:
        DatasetError: the source cannot be read, or is not as a dataset should be.
        DecodingStoppedError: `is_wanted` returned false. Nothing is left behind.
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
    """Opens a dataset that was decoded before.

    Raises:
        DatasetError: the cache has none of this fingerprint, or a damaged one.
    """
    try:
        return cache.load(cache_dir, fingerprint)
    except StaleCacheError as error:
        raise DatasetError(f"no dataset {fingerprint} is in the cache: {error}") from error


def describe_cache(cache_dir: Path) -> dict[str, str | None]:
    """Returns the fingerprint of each decoded dataset, with what is wrong with it, if anything."""
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
        raise DatasetError(f"{source!r} cannot be looked for: {error}") from error


def _decode(
    source: Source,
    cache_dir: Path,
    key: str,
    progress: Progress | None,
    is_wanted: Callable[[], bool],
) -> Dataset:
    with cache.locked(cache_dir, key):
        try:
            return cache.load_source(cache_dir, key)  # another process has just done it
        except StaleCacheError:
            contents = source.read()
            images = _while_wanted(contents.images, is_wanted)
            return cache.store(cache_dir, key, replace(contents, images=images), progress)


def _while_wanted(images: Iterator[Item], is_wanted: Callable[[], bool]) -> Iterator[Item]:
    for image in images:
        if not is_wanted():
            raise DecodingStoppedError
        yield image
