"""Decodes the configured datasets before the server serves, showing how far it is."""

from collections.abc import Mapping
from pathlib import Path

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from leadline.models.datasets import DatasetError, check_source, open_dataset

_LOG = structlog.get_logger(__name__)


def prepare_datasets(sources: Mapping[str, str], cache: Path, *, max_pixels: int) -> dict[str, str]:
    """Opens each source, which decodes it where that was not done before. Blocks.

    A wrong archive so stops the server at its start, not a job at its first
    epoch. The built-in datasets need no such check.

    Returns:
        The fingerprint of each source, by its name.

    Raises:
        DatasetError: a source cannot be used; the message names the dataset.
    """
    for name, source in sources.items():
        try:
            check_source(source)
        except DatasetError as error:
            raise DatasetError(f"dataset {name}: {error}") from error
    return {name: _prepare(name, source, cache, max_pixels) for name, source in sources.items()}


def _prepare(name: str, source: str, cache: Path, max_pixels: int) -> str:
    columns = (
        TextColumn("decoding {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # A bar where someone looks; elsewhere only the log line below.
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
