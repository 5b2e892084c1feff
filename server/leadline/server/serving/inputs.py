"""Validates images in requests and converts them to arrays of pixels."""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leadline.models.images import IMAGE_SIZE, EncodedImage, ImageError, open_image
from leadline.models.spec import Violation
from leadline.server.errors import InvalidArgumentError

Pixels = NDArray[np.uint8] | NDArray[np.float32]

Steps = Generator[int, Callable[[], bool] | None, Pixels]
"""Decodes images in steps of about ten milliseconds, so that other requests get their turns.

Each step yields the remaining work in pixels, and receives a function that returns whether
to continue."""


class PixelType(StrEnum):
    """The type and layout of an array of pixels."""

    UINT8 = "uint8"  # NHWC [images, 32, 32, 3], 0 to 255
    FLOAT32 = "float32"  # NCHW [images, 3, 32, 32], normalised to [-1, 1]


_IMAGE_SHAPES = {
    PixelType.UINT8: (IMAGE_SIZE, IMAGE_SIZE, 3),
    PixelType.FLOAT32: (3, IMAGE_SIZE, IMAGE_SIZE),
}
_IMAGE_VALUES = 3 * IMAGE_SIZE * IMAGE_SIZE

_ZEROS = np.zeros(_IMAGE_VALUES, np.float32)

# The work of a step, in pixels: 10 to 40 milliseconds. A smaller request is one step.
_STEP_WORK = 1 << 20

# The work of an image in addition to its pixels and bytes.
_IMAGE_WORK = 1 << 12

# An error shows this many dimensions of a wrong shape.
_SHOWN_SIDES = 8
_DTYPES: dict[PixelType, np.dtype[Any]] = {
    PixelType.UINT8: np.dtype(np.uint8),
    PixelType.FLOAT32: np.dtype("<f4"),
}


@dataclass(frozen=True, kw_only=True)
class InputLimits:
    """The limits of one request.

    Attributes:
        images: the number of images.
        image_bytes: the bytes of an encoded image.
        image_pixels: the pixels of an encoded image.
        pixels: the pixels of all encoded images together, counted by `EncodedImage.work`.
    """

    images: int
    image_bytes: int
    image_pixels: int
    pixels: int


@dataclass(frozen=True, kw_only=True)
class InputFields:
    """The names of a request's fields in error messages."""

    files: str
    shape: str
    data: str


PREDICT_FIELDS = InputFields(files="encoded.images", shape="tensor.shape", data="tensor.data")


def check_files(
    files: Sequence[bytes], limits: InputLimits, fields: InputFields = PREDICT_FIELDS
) -> None:
    """Checks the number and the sizes of image files.

    Raises:
        InvalidArgumentError: there are no images or too many, or an image is too large.
    """
    check_count(fields.files, len(files), limits)
    _raise_for(
        Violation(
            field=f"{fields.files}[{index}]",
            description=f"has {len(data)} bytes, but the limit is {limits.image_bytes}",
        )
        for index, data in enumerate(files)
        if len(data) > limits.image_bytes
    )


def decode_files(
    files: Sequence[bytes], limits: InputLimits, fields: InputFields = PREDICT_FIELDS
) -> Steps:
    """Decodes PNG and JPEG files. Blocks.

    Returns:
        Steps that return uint8 pixels, NHWC [images, 32, 32, 3].

    Raises:
        InvalidArgumentError: images cannot be decoded, or all images together have
            too many pixels. The error has the indices.
        DecodingStoppedError: the function that a step received returned false.
    """
    left = sum(map(_work_besides_pixels, files))
    images, violations = yield from _open_files(files, left, limits, fields)
    left += _count_pixels(images, limits, fields)
    is_wanted = (yield left) if left > _STEP_WORK else None
    pixels = np.empty((len(files), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    step_end = left - _STEP_WORK
    for index, image in enumerate(images):
        if image is None:
            continue
        if left <= step_end:
            is_wanted = yield left
            step_end = left - _STEP_WORK
        work = image.work + _work_besides_pixels(files[index])
        left -= work
        try:
            pixels[index] = image.decode(is_wanted if work > _STEP_WORK else None)
        except ImageError as error:
            violations.append(_invalid_image(fields, index, error))
    _raise_for(violations)
    return pixels


def _work_besides_pixels(file: bytes) -> int:
    return _IMAGE_WORK + len(file)


def _open_files(
    files: Sequence[bytes], left: int, limits: InputLimits, fields: InputFields
) -> Generator[int, object, tuple[list[EncodedImage | None], list[Violation]]]:
    """Reads the headers, in steps; an image with a bad header is None and has a violation."""
    images: list[EncodedImage | None] = []
    violations = []
    room = _STEP_WORK if left <= _STEP_WORK else 0
    for index, data in enumerate(files):
        if room <= 0:
            yield left
            room = _STEP_WORK
        room -= _work_besides_pixels(data)
        try:
            images.append(open_image(data, max_pixels=limits.image_pixels))
        except ImageError as error:
            images.append(None)
            violations.append(_invalid_image(fields, index, error))
    return images, violations


def _count_pixels(
    images: Iterable[EncodedImage | None], limits: InputLimits, fields: InputFields
) -> int:
    pixels = 0
    for index, image in enumerate(images):
        pixels += image.work if image is not None else 0
        if index and pixels > limits.pixels:
            raise InvalidArgumentError.of(
                fields.files,
                f"have {pixels:,} pixels up to image {index}, but the images of a request may "
                f"have {limits.pixels:,}: send image {index} and those after it in another "
                "request",
            )
    return pixels


def _invalid_image(fields: InputFields, index: int, error: ImageError) -> Violation:
    return Violation(field=f"{fields.files}[{index}]", description=str(error))


def read_tensor(
    pixel_type: PixelType,
    shape: Sequence[int],
    data: bytes | memoryview,
    limits: InputLimits,
    fields: InputFields = PREDICT_FIELDS,
) -> Pixels:
    """Reads raw pixels without copying them.

    Returns:
        The pixels in the layout of their type.

    Raises:
        InvalidArgumentError: the shape or the number of bytes is wrong, or a
            number is not finite.
    """
    layout = tensor_layout(pixel_type, shape, fields)
    check_count(fields.shape, shape[0], limits)
    if len(data) != layout.size:
        raise InvalidArgumentError.of(
            fields.data, f"has {len(data)} bytes, but the shape {list(shape)} takes {layout.size}"
        )
    pixels: Pixels = np.ndarray(layout.shape, layout.dtype, data)
    check_finite(pixels, fields)
    return pixels


class TensorLayout(NamedTuple):
    """The layout of raw pixels, which take `size` bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    size: int


def tensor_layout(
    pixel_type: PixelType, shape: Sequence[int], fields: InputFields = PREDICT_FIELDS
) -> TensorLayout:
    """Returns the layout of raw pixels of a shape.

    Raises:
        InvalidArgumentError: the shape is not a shape of images.
    """
    image_shape = _IMAGE_SHAPES[pixel_type]
    if len(shape) != len(image_shape) + 1 or tuple(shape[1:]) != image_shape:
        raise InvalidArgumentError.of(
            fields.shape,
            f"is {shown_shape(shape)}, but {pixel_type} pixels have the shape "
            f"[images, {', '.join(map(str, image_shape))}]",
        )
    images = shape[0]
    dtype = _DTYPES[pixel_type]
    return TensorLayout((images, *image_shape), dtype, images * _IMAGE_VALUES * dtype.itemsize)


def check_finite(pixels: Pixels, fields: InputFields) -> None:
    """Checks that all numbers are finite.

    Raises:
        InvalidArgumentError: a number is infinite or NaN.
    """
    if not _are_finite(pixels):
        raise InvalidArgumentError.of(fields.data, "has values that are not finite numbers")


def _are_finite(pixels: Pixels) -> bool:
    if pixels.dtype == _DTYPES[PixelType.UINT8]:
        return True
    if pixels.size != _IMAGE_VALUES:
        return bool(np.isfinite(pixels).all())
    # Zero times a number is zero, unless the number is infinite or NaN. For one image, this
    # takes a fifth of the time of `isfinite`.
    return bool(pixels.reshape(-1).dot(_ZEROS) == 0.0)


def shown_shape(shape: Sequence[int]) -> str:
    """A shape for error messages, shortened if it is long."""
    return f"[{', '.join(map(str, shape[:_SHOWN_SIDES]))}{', ...' * (len(shape) > _SHOWN_SIDES)}]"


def check_count(field: str, count: int, limits: InputLimits) -> None:
    """Checks that there is an image, and no more than the limit.

    Raises:
        InvalidArgumentError: there are no images or too many.
    """
    if count < 1:
        raise InvalidArgumentError.of(field, "has no image: send at least one")
    if count > limits.images:
        raise InvalidArgumentError.of(
            field, f"has {count} images, but a request may have {limits.images}: send several"
        )


def _raise_for(violations: Any) -> None:
    if listed := list(violations):
        raise InvalidArgumentError(listed, reason="INVALID_IMAGE")
