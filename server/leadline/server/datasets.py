"""The datasets that jobs may name: configured, built in, or cached under a name used before."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from leadline.models._files import write_atomically
from leadline.models.datasets import DatasetError, check_source, describe_cache, open_dataset
from leadline.server.settings import BUILT_IN_DATASETS

_LOG = structlog.get_logger(__name__)

# In the cache folder: the source and the fingerprint of each name ever configured.
_NAMES = "names.json"


@dataclass(frozen=True, kw_only=True)
class KnownDatasets:
    """The datasets that jobs may name.

    Attributes:
        sources: each dataset's source, as `leadline.models.datasets.open_dataset` takes it.
        fingerprints: those of the datasets that are in the cache under their name.
    """

    sources: Mapping[str, str]
    fingerprints: Mapping[str, str]


def prepare_datasets(
    configured: Mapping[str, str], cache: Path, *, max_pixels: int
) -> KnownDatasets:
    """Decodes the configured datasets that are not in the cache, and shows progress. Blocks.

    An unusable source stops the server at startup instead of failing a job later. A
    dataset that was configured at an earlier start stays known while the cache has it.

    Raises:
        DatasetError: a source cannot be used; the message names the dataset.
    """
    for name, source in configured.items():
        try:
            check_source(source)
        except DatasetError as error:
            raise DatasetError(f"dataset {name}: {error}") from error
    known = _cached(cache)
    for name, source in configured.items():
        fingerprint = _prepare(name, source, cache, max_pixels)
        known[name] = {"source": source, "fingerprint": fingerprint}
    try:
        write_atomically(cache / _NAMES, json.dumps(known, indent=2).encode() + b"\n")
    except OSError as error:
        raise DatasetError(f"{cache / _NAMES} cannot be written: {error}") from error
    return KnownDatasets(
        sources=BUILT_IN_DATASETS | {name: entry["source"] for name, entry in known.items()},
        fingerprints={name: entry["fingerprint"] for name, entry in known.items()},
    )


def _cached(cache: Path) -> dict[str, dict[str, str]]:
    """The names of earlier starts whose datasets are still in the cache."""
    path = cache / _NAMES
    try:
        names: dict[str, dict[str, str]] = json.loads(path.read_bytes()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}; remove it") from error
    intact = {name for name, fault in describe_cache(cache).items() if fault is None}
    return {name: entry for name, entry in names.items() if entry["fingerprint"] in intact}


def _prepare(name: str, source: str, cache: Path, max_pixels: int) -> str:
    columns = (
        TextColumn("decoding {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # The bar is for a terminal; elsewhere there is only the log line below.
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        try:
            dataset = open_dataset(
                source,
                cache,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
                max_pixels=max_pixels,
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
