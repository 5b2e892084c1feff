"""The datasets that jobs may name: configured, built in, or cached under a name used before."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from leadline.models._files import write_atomically
from leadline.models.datasets import DatasetError, check_source, find_dataset, open_dataset
from leadline.server.settings import BUILT_IN_DATASETS

_LOG = structlog.get_logger(__name__)

# In the cache folder: the source and the fingerprint of every name ever configured.
_NAMES = "names.json"


class DatasetSize(NamedTuple):
    """How many images the training set has, and how many classes."""

    images: int
    classes: int


# Of CIFAR-10, which workers download, and of a dataset that must be decoded again.
_ASSUMED_SIZE = DatasetSize(images=50_000, classes=10)


class _Entry(NamedTuple):
    source: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class KnownDatasets:
    """The datasets that jobs may name.

    Attributes:
        sources: each dataset's source, for `leadline.models.datasets.open_dataset`.
        fingerprints: by the same names; empty if the dataset must be decoded again.
        sizes: by the same names; those of datasets that are in the cache.
    """

    sources: Mapping[str, str]
    fingerprints: Mapping[str, str]
    sizes: Mapping[str, DatasetSize] = field(default_factory=dict)

    def size(self, name: str) -> DatasetSize:
        """The size of a dataset, or that of CIFAR-10 if it is not decoded yet."""
        return self.sizes.get(name, _ASSUMED_SIZE)


def prepare_datasets(
    configured: Mapping[str, str],
    cache: Path,
    *,
    max_pixels: int,
    is_wanted: Callable[[], bool] = lambda: True,
) -> KnownDatasets:
    """Decodes the configured datasets that are not in the cache, and shows progress. Blocks.

    An unusable source stops the server at startup instead of failing a job later. The
    server still knows datasets that were configured at earlier starts.

    Raises:
        DatasetError: a source is unusable; the message names the dataset.
        DecodingStoppedError: `is_wanted` returned false.
    """
    for name, source in configured.items():
        try:
            check_source(source)
        except DatasetError as error:
            raise DatasetError(f"dataset {name}: {error}") from error
    known = _read_names(cache / _NAMES)
    before = dict(known)
    for name, source in configured.items():
        known[name] = _Entry(source, _prepare(name, source, cache, max_pixels, is_wanted))
    if known != before:
        _write_names(cache / _NAMES, known)
    usable = _usable(known, cache)
    sizes = {name: _size(digest, cache) for name, digest in usable.items() if digest}
    return KnownDatasets(
        sources=BUILT_IN_DATASETS | {name: known[name].source for name in usable},
        fingerprints=usable,
        sizes=sizes,
    )


def _size(fingerprint: str, cache: Path) -> DatasetSize:
    dataset = find_dataset(fingerprint, cache)
    return DatasetSize(images=len(dataset.train.labels), classes=len(dataset.class_names))


def _usable(known: Mapping[str, _Entry], cache: Path) -> dict[str, str]:
    """The fingerprint of each dataset that jobs may name; empty if it must be decoded again.

    A name whose cache is damaged is omitted, until the cache or the source is back.
    """
    usable = {}
    for name, entry in known.items():
        try:
            usable[name] = _cached_fingerprint(entry, cache)
        except DatasetError as error:
            _LOG.warning("a dataset is lost: its cache is damaged", dataset=name, error=str(error))
    return usable


def _cached_fingerprint(entry: _Entry, cache: Path) -> str:
    """The fingerprint of a dataset in the cache; empty if only its source exists.

    Raises:
        DatasetError: neither the cache nor the source has the dataset.
    """
    try:
        find_dataset(entry.fingerprint, cache)
    except DatasetError:
        check_source(entry.source)
        return ""
    return entry.fingerprint


def _read_names(path: Path) -> dict[str, _Entry]:
    """The names of earlier starts.

    Raises:
        DatasetError: the file is damaged.
    """
    try:
        values = json.loads(path.read_bytes()) if path.exists() else {}
        entries = {name: _Entry(**entry) for name, entry in values.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{path} cannot be read: {error}; remove it") from error
    if not all(isinstance(text, str) for entry in entries.values() for text in entry):
        raise DatasetError(f"{path} is damaged: remove it")
    return entries


def _write_names(path: Path, known: Mapping[str, _Entry]) -> None:
    values = {name: entry._asdict() for name, entry in known.items()}
    try:
        write_atomically(path, json.dumps(values, indent=2).encode() + b"\n")
    except OSError as error:
        raise DatasetError(f"{path} cannot be written: {error}") from error


def _prepare(
    name: str, source: str, cache: Path, max_pixels: int, is_wanted: Callable[[], bool]
) -> str:
    columns = (
        TextColumn("decoding {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # The progress bar is for a terminal; otherwise only the log line below appears.
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        try:
            dataset = open_dataset(
                source,
                cache,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
                max_pixels=max_pixels,
                is_wanted=is_wanted,
            )
        except DatasetError as error:
            raise DatasetError(f"dataset {name}: {error}") from error
    _LOG.info(
        "dataset ready",
        dataset=name,
        classes=len(dataset.class_names),
        train_images=len(dataset.train.labels),
        test_images=len(dataset.test.labels),
        fingerprint=dataset.fingerprint,
    )
    return dataset.fingerprint
