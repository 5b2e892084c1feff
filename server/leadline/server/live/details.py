"""What the page asks about one job: its curve, its confusion matrix, its wrong images."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from leadline.models.images import encode_png
from leadline.server.errors import InvalidArgumentError
from leadline.server.inspection.examples import Example, ImageFormat
from leadline.server.inspection.inspector import Inspector
from leadline.server.inspection.misclassified import Grouping, ListingQuery
from leadline.server.live.cards import Card, job_details
from leadline.server.live.errors import TooBusyError
from leadline.server.serving.catalog import ByName, Catalog, CheckpointRef
from leadline.server.serving.examples import ExampleRef, read_examples
from leadline.server.storage.store import Store
from leadline.server.thread_pool import ThreadPool

# Questions in work or waiting for a thread.
MOST_QUESTIONS = 64

# Images that are shown at a time.
PAGE_IMAGES = 24


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Which images to list: those of a confusion cell, or all wrong ones.

    Attributes:
        true: those of this class only; None for any.
        taken: those that are taken for this class only; None for any.
        offset: how many to pass over.
    """

    true: int | None = None
    taken: int | None = None
    offset: int = 0

    @property
    def is_right(self) -> bool:
        """Whether it is a cell of the diagonal."""
        return self.true is not None and self.true == self.taken


class Details:
    """Answers the page's questions, in threads that it has to itself."""

    def __init__(
        self, *, store: Store, threads: ThreadPool, catalog: Catalog, dataset_cache: Path
    ) -> None:
        self._store = store
        self._threads = threads
        self._catalog = catalog
        self._inspector = Inspector(dataset_cache=dataset_cache)
        self._dataset_cache = dataset_cache
        self._pending = 0

    async def job(self, job_id: str) -> Card:
        """A job with every epoch of its curve.

        Raises:
            NotFoundError: there is no such job.
            TooBusyError: enough is asked already; so with every method.
        """
        with self._asking():
            return await self._threads.run(self._job, job_id)

    async def confusion(self, job_id: str, epoch: int) -> Card:
        """How often test images of each class are taken for each class.

        Raises:
            NotFoundError: there is no such epoch.
            FailedPreconditionError: its images or its predictions are gone.
            DataLossError: its files are damaged.
        """
        with self._asking():
            checkpoint = await self._catalog.resolve(ByName(job_id=job_id, epoch=epoch))
            found = await self._threads.run(self._inspector.confusion, checkpoint, "test")
        return {
            **_checkpoint(checkpoint),
            "counts": found.counts.tolist(),
            "images": found.images,
            "accuracy": found.accuracy,
        }

    async def examples(self, job_id: str, epoch: int, cell: Cell) -> Card:
        """Test images of a cell, or all that are wrong, the most probable first.

        Raises:
            NotFoundError: there is no such epoch.
            InvalidArgumentError: there is no such class.
            FailedPreconditionError: its images or its predictions are gone.
            DataLossError: its files are damaged.
        """
        with self._asking():
            checkpoint = await self._catalog.resolve(ByName(job_id=job_id, epoch=epoch))
            _check(cell, classes=len(checkpoint.model.started.class_names))
            listing = await self._threads.run(
                self._inspector.list_misclassified,
                checkpoint,
                _query(cell),
                offset=cell.offset,
                limit=PAGE_IMAGES,
            )
        return {
            **_checkpoint(checkpoint),
            "examples": [_example(one) for one in listing.examples],
            "total": listing.total,
            "wrong": listing.images - listing.correct,
            "images": listing.images,
        }

    async def image(self, example: ExampleRef) -> bytes:
        """An image of a dataset, as PNG.

        Raises:
            InvalidArgumentError: it is not on this server.
        """
        with self._asking():
            return await self._threads.run(self._image, example)

    def _job(self, job_id: str) -> Card:
        job = self._store.jobs.get(job_id)
        model = self._store.models.get(job_id) if job.completed_epochs else None
        return job_details(job, model)

    def _image(self, example: ExampleRef) -> bytes:
        (pixels,) = read_examples([example], self._dataset_cache)
        return encode_png(pixels)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        if self._pending >= MOST_QUESTIONS:
            raise TooBusyError(f"{MOST_QUESTIONS} questions are in work, which is the limit")
        self._pending += 1
        try:
            yield
        finally:
            self._pending -= 1


def _check(cell: Cell, *, classes: int) -> None:
    for field, index in (("true", cell.true), ("taken", cell.taken)):
        if index is not None and not 0 <= index < classes:
            raise InvalidArgumentError.of(field, f"is {index}, of classes 0 to {classes - 1}")


def _query(cell: Cell) -> ListingQuery:
    return ListingQuery(
        grouping=Grouping.NONE,
        include_correct=cell.is_right,
        true_class=cell.true,
        predicted_class=cell.taken,
        image_format=ImageFormat.NONE,
    )


def _checkpoint(checkpoint: CheckpointRef) -> Card:
    return {
        "epoch": checkpoint.epoch.epoch,
        "classes": list(checkpoint.model.started.class_names),
        "fingerprint": checkpoint.model.started.dataset_fingerprint,
    }


def _example(example: Example) -> Card:
    return {
        "index": example.picture.ref.index,
        "true": example.true_class,
        "taken": example.predicted_class,
        "probability": example.probability,
    }
