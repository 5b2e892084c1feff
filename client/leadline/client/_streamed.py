"""A batch of images in a stream, with the result of each image."""

from collections.abc import Iterable, Sequence

from leadline.client._batches import Batch, LoadedImage, load
from leadline.client._errors import (
    InvalidArgumentError,
    RpcError,
    invalid,
)
from leadline.client._image_errors import image_index, is_too_large, renamed
from leadline.client._predictions import ImageFailure
from leadline.v1.inference_service_pb2 import Prediction

# The fields of a request that hold images.
_INPUTS = ("encoded", "examples", "tensor")


class StreamedBatch:
    """A batch in flight.

    Attributes:
        images: the images that could be loaded.
    """

    def __init__(self, batch: Batch) -> None:
        """Loads the images; images that cannot be loaded become failures. Blocks."""
        self._results: dict[int, Prediction | ImageFailure] = {}
        self.images: list[LoadedImage] = []
        for image in batch:
            try:
                self.images.append(load(image))
            except (OSError, InvalidArgumentError) as error:
                self._fail(image.index, error)

    @property
    def results(self) -> list[Prediction | ImageFailure]:
        """The results of the images, in order."""
        return [self._results[index] for index in sorted(self._results)]

    def answer(self, images: Iterable[LoadedImage], predictions: Iterable[Prediction]) -> None:
        """Records the predictions of some of the images."""
        for image, prediction in zip(images, predictions, strict=True):
            self._results[image.index] = prediction

    def refuse(self, images: Sequence[LoadedImage], error: RpcError) -> list[Sequence[LoadedImage]]:
        """Records an error about some of the images; returns the parts to send again.

        If the error names images, these fail, and the others are one part. Otherwise
        the parts are the two halves, or a single image fails.

        Raises:
            RpcError: `error`, if it is not about the images.
        """
        if isinstance(error, InvalidArgumentError):
            bad = {image_index(violation) for violation in error.violations} - {None}
            if bad:
                return self._without(images, bad, error)
            fields = [violation.field for violation in error.violations]
            about_images = any(field.startswith(_INPUTS) for field in fields)
        else:
            about_images = is_too_large(error)
        if not about_images:
            raise error
        return self._halves(images, error)

    def _without(
        self, images: Sequence[LoadedImage], bad: set[int | None], error: InvalidArgumentError
    ) -> list[Sequence[LoadedImage]]:
        for position, image in enumerate(images):
            if position in bad:
                self._fail(image.index, _about(error, position, image.index))
        rest = [image for position, image in enumerate(images) if position not in bad]
        if len(rest) == len(images):  # the index of no image: retries would never end
            raise error
        return [rest] if rest else []

    def _halves(
        self, images: Sequence[LoadedImage], error: RpcError
    ) -> list[Sequence[LoadedImage]]:
        middle = len(images) // 2
        if middle:
            return [images[:middle], images[middle:]]
        index = images[0].index
        self._fail(index, invalid(f"images[{index}]", error.message))
        return []

    def _fail(self, index: int, error: OSError | InvalidArgumentError) -> None:
        self._results[index] = ImageFailure(index=index, error=error)


def _about(error: InvalidArgumentError, position: int, index: int) -> InvalidArgumentError:
    """The part of an error about several images that concerns one of them."""
    violation = next(item for item in error.violations if image_index(item) == position)
    return renamed(invalid(*violation), lambda _: f"images[{index}]")
