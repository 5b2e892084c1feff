"""The details of one job: its curve, its confusion matrix, its misclassified images."""

import json
from dataclasses import dataclass
from functools import partial

from leadline.server.errors import InvalidArgumentError
from leadline.server.inspection.confusion import Confusion
from leadline.server.inspection.examples import Example, ImageFormat
from leadline.server.inspection.misclassified import Grouping, Listing, ListingQuery
from leadline.server.live.cards import Card, job_details
from leadline.server.live.errors import Admission
from leadline.server.services.inspection import InspectionService
from leadline.server.services.models import ModelService
from leadline.server.serving.catalog import ByName, CheckpointRef
from leadline.server.serving.examples import ExampleRef

# The most requests in flight or waiting for a thread.
MAX_REQUESTS = 64

# One caller for all requests: the page has its own threads, apart from those of gRPC.
_CALLER = "page"

# The number of images shown at a time.
PAGE_IMAGES = 24


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Selects images: those of a cell of the confusion matrix, or all misclassified ones.

    Attributes:
        true: only images of this class; None for any.
        taken: only images predicted as this class; None for any.
        offset: the number of images to skip.
    """

    true: int | None = None
    taken: int | None = None
    offset: int = 0

    @property
    def is_right(self) -> bool:
        """Whether the cell is on the diagonal."""
        return self.true is not None and self.true == self.taken


class Details:
    """Answers the page's requests for details, a bounded number at a time.

    Responses are JSON, encoded in a thread: ten thousand epochs, or the matrix of a
    thousand classes, take a megabyte.
    """

    def __init__(self, models: ModelService, inspection: InspectionService) -> None:
        self._models = models
        self._inspection = inspection
        self._admission = Admission(MAX_REQUESTS)

    async def job(self, job_id: str) -> str:
        """A job with every epoch of its curve.

        Raises:
            NotFoundError: there is no such job.
            TooBusyError: too many requests are in flight; every method may raise it.
        """
        with self._admission:
            return await self._models.get_with_job(
                lambda job, model: json.dumps(job_details(job, model)), job_id, caller=_CALLER
            )

    async def confusion(self, job_id: str, epoch: int) -> str:
        """Counts how often test images of each class are predicted as each class.

        Raises:
            NotFoundError: there is no such epoch.
            FailedPreconditionError: the epoch's images or predictions are missing.
            DataLossError: the epoch's files are damaged.
        """
        with self._admission:
            checkpoint = await self._inspection.resolve(ByName(job_id=job_id, epoch=epoch))
            use = partial(_confusion, checkpoint)
            return await self._inspection.confusion(use, checkpoint, "test", caller=_CALLER)

    async def examples(self, job_id: str, epoch: int, cell: Cell) -> str:
        """Test images of a cell, or all misclassified ones, the most probable first.

        Raises:
            InvalidArgumentError: there is no such class. Other errors: see `confusion`.
        """
        with self._admission:
            checkpoint = await self._inspection.resolve(ByName(job_id=job_id, epoch=epoch))
            query = _query(cell, classes=len(checkpoint.model.started.class_names))
            return await self._inspection.list_misclassified(
                partial(_examples, checkpoint),
                checkpoint,
                query,
                offset=cell.offset,
                limit=PAGE_IMAGES,
                caller=_CALLER,
            )

    async def image(self, example: ExampleRef) -> bytes:
        """An image of a dataset, as PNG.

        Raises:
            InvalidArgumentError: the image is not on this server.
        """
        with self._admission:
            return await self._inspection.png(example, caller=_CALLER)


def _query(cell: Cell, *, classes: int) -> ListingQuery:
    for field, index in (("true", cell.true), ("taken", cell.taken)):
        if index is not None and not 0 <= index < classes:
            raise InvalidArgumentError.of(field, f"is {index}, of classes 0 to {classes - 1}")
    return ListingQuery(
        grouping=Grouping.NONE,
        include_correct=cell.is_right,
        true_class=cell.true,
        predicted_class=cell.taken,
        image_format=ImageFormat.NONE,
    )


def _confusion(checkpoint: CheckpointRef, confusion: Confusion) -> str:
    return json.dumps(
        {
            **_checkpoint(checkpoint),
            "counts": confusion.counts.tolist(),
            "images": confusion.images,
            "accuracy": confusion.accuracy,
        }
    )


def _examples(checkpoint: CheckpointRef, listing: Listing) -> str:
    return json.dumps(
        {
            **_checkpoint(checkpoint),
            "examples": [_example(example) for example in listing.examples],
            "total": listing.total,
            "wrong": listing.images - listing.correct,
            "images": listing.images,
        }
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
        "aspect": example.picture.aspect_ratio,
    }
