"""Groups images into batches, and builds requests from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from leadline.client._errors import InternalError, InvalidArgumentError, invalid
from leadline.client._images import (
    Images,
    Kind,
    LoadableImage,
    listed,
    source,
    unloadable,
)
from leadline.client._text import counted
from leadline.v1 import inference_service_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """The limits of one request; a larger image is sent alone."""

    images: int
    bytes: int


# For unary calls: few requests, each far below the limits of a server.
CALL_LIMITS = BatchLimits(images=1024, bytes=8 * 1024 * 1024)

# For messages of a stream: below the lowest message limit that a server can have
# (1 MiB), and small enough for several in flight.
STREAM_LIMITS = BatchLimits(images=256, bytes=960 * 1024)

Batch: TypeAlias = tuple[LoadableImage, ...]
"""Consecutive images of one kind, at least one."""


class Batcher:
    """Groups images into batches, in order."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._images: list[LoadableImage] = []
        self._size = 0
        self._kind: Kind | None = None

    def add(self, image: LoadableImage) -> Batch | None:
        """Adds an image; returns the batch that it completes, or that has no room for it."""
        done = None if self._has_room_for(image) else self.rest()
        self._images.append(image)
        self._size += image.size
        self._kind = self._kind or image.kind
        if done is None and len(self._images) >= self._limits.images:
            done = self.rest()
        return done

    def rest(self) -> Batch | None:
        """Returns the incomplete batch; None if it is empty."""
        rest = tuple(self._images)
        self._images, self._size, self._kind = [], 0, None
        return rest or None

    def _has_room_for(self, image: LoadableImage) -> bool:
        if not self._images:
            return True
        if image.kind and self._kind and image.kind is not self._kind:
            return False
        return (
            len(self._images) < self._limits.images
            and self._size + image.size <= self._limits.bytes
        )


def stream_batcher(batch_size: int | None) -> Batcher:
    """Makes the batcher of a stream with this many images per request; None for the default.

    Raises:
        InvalidArgumentError: the number is out of range.
    """
    if batch_size is None:
        return Batcher(STREAM_LIMITS)
    if not 1 <= batch_size <= CALL_LIMITS.images:
        raise invalid("batch_size", f"must be from 1 to {CALL_LIMITS.images}, is {batch_size}")
    return Batcher(BatchLimits(images=batch_size, bytes=STREAM_LIMITS.bytes))


@dataclass(frozen=True)
class LoadedImage:
    """An image with its bytes to send."""

    index: int
    kind: Kind
    data: bytes


def batches(images: Images) -> Iterator[Batch]:
    """Yields the batches of the images of a unary call, in order.

    Checks first that the files exist, and loads them later.

    Raises:
        InvalidArgumentError: there is no image, an image is too large, or an
            array has another shape or type.
        OSError: a file does not exist.
    """
    loadable: list[LoadableImage] = []
    for image in listed(images):
        loadable += source(image, len(loadable))
    if not loadable:
        raise invalid("images", "there are none")
    return _batched(loadable)


def source_or_failure(image: object, index: int) -> list[LoadableImage]:
    """The images in one element of the caller's images, or an image that fails with the error."""
    try:
        return source(image, index)
    except (OSError, InvalidArgumentError) as error:
        return unloadable(error, index)


def load(image: LoadableImage) -> LoadedImage:
    """Loads the image's bytes. Blocks.

    Raises:
        OSError: the file cannot be read.
        InvalidArgumentError: the file is not an image.
    """
    data = image.load()
    assert image.kind is not None  # noqa: S101 - images without a kind raise
    return LoadedImage(image.index, image.kind, data)


def load_all(batch: Batch) -> Sequence[LoadedImage]:
    """Loads the bytes of the batch's images; raises the errors of `load`. Blocks."""
    return [load(image) for image in batch]


def request(images: Sequence[LoadedImage], selector: pb.PredictRequest) -> pb.PredictRequest:
    """The request for at least one image, all of one kind; `selector` has the other fields."""
    made = pb.PredictRequest()
    made.CopyFrom(selector)
    data = [image.data for image in images]
    kind = images[0].kind
    if kind is Kind.ENCODED:
        made.encoded.images.extend(data)
        return made
    if kind is Kind.NAME:
        made.examples.names.extend(name.decode() for name in data)
        return made
    made.tensor.data = b"".join(data)
    if kind is Kind.UINT8:
        made.tensor.data_type = pb.DATA_TYPE_UINT8
        made.tensor.shape.extend((len(data), 32, 32, 3))
    else:
        made.tensor.data_type = pb.DATA_TYPE_FLOAT32
        made.tensor.shape.extend((len(data), 3, 32, 32))
    return made


def predictions(
    images: Sequence[LoadedImage], response: pb.PredictResponse
) -> Sequence[pb.Prediction]:
    """The predictions of a response, one per image.

    Raises:
        InternalError: the numbers of predictions and images differ.
    """
    if len(response.predictions) != len(images):
        raise InternalError(
            f"the server answered {counted(len(images), 'image')} with "
            f"{counted(len(response.predictions), 'prediction')}"
        )
    return response.predictions


def _batched(images: Iterable[LoadableImage]) -> Iterator[Batch]:
    batcher = Batcher(CALL_LIMITS)
    for image in images:
        if batch := batcher.add(image):
            yield batch
    if rest := batcher.rest():
        yield rest
