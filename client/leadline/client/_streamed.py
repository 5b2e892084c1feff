"""A batch of images on its way through a stream, and what comes of each of them."""

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

# The fields of a request that its images are in.
_INPUTS = ("encoded", "examples", "tensor")


class StreamedBatch:
    """A batch that is being answered.

    Attributes:
        images: what there is to ask about, which is what could be loaded.
    """

    def __init__(self, batch: Batch) -> None:
        """Loads the images; one that cannot be is a failure and no matter to others. Blocks."""
        self._results: dict[int, Prediction | ImageFailure] = {}
        self.images: list[LoadedImage] = []
        for image in batch:
            try:
                self.images.append(load(image))
            except (OSError, InvalidArgumentError) as error:
                self._fail(image.index, error)

    @property
    def results(self) -> list[Prediction | ImageFailure]:
        """What has come of the images, in their order."""
        return [self._results[index] for index in sorted(self._results)]

    def answer(self, images: Iterable[LoadedImage], predictions: Iterable[Prediction]) -> None:
        """Takes the answer to some of the images."""
        for image, prediction in zip(images, predictions, strict=True):
            self._results[image.index] = prediction

    def refuse(self, images: Sequence[LoadedImage], error: RpcError) -> list[Sequence[LoadedImage]]:
        """Takes an error about some of the images; what to ask instead, part by part.

        Images that the error names have failed; the others can be asked about
        again. Where it names none, a half is asked about at a time, until it is
        about one image alone.

        Raises:
            RpcError: `error`, where it is not about the images.
        """
        if isinstance(error, InvalidArgumentError):
            bad = {image_index(violation) for violation in error.violations} - {None}
            if bad:
                return self._without(images, bad, error)
            about_images = any(one.field.startswith(_INPUTS) for one in error.violations)
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
        if len(rest) == len(images):  # an index of no image: asking again would not end
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
    """Of an error about several images, what is about one."""
    found = [one for one in error.violations if image_index(one) == position]
    return renamed(invalid(found[0].field, found[0].description), lambda _: f"images[{index}]")
