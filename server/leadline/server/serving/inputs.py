"""Validates images in requests and converts them to arrays of pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadline.models.images import IMAGE_SIZE, ImageError, decode_image
from leadline.models.spec import Violation
from leadline.server.errors import InvalidArgumentError

Pixels = NDArray[np.uint8] | NDArray[np.float32]


class PixelType(StrEnum):
    """How an array of pixels is laid out."""

    UINT8 = "uint8"  # NHWC [images, 32, 32, 3], 0 to 255
    FLOAT32 = "float32"  # NCHW [images, 3, 32, 32], normalised to [-1, 1]


_IMAGE_SHAPES = {
    PixelType.UINT8: (IMAGE_SIZE, IMAGE_SIZE, 3),
    PixelType.FLOAT32: (3, IMAGE_SIZE, IMAGE_SIZE),
}
_IMAGE_VALUES = 3 * IMAGE_SIZE * IMAGE_SIZE

# An error shows this much of a wrong shape.
_SHOWN_SIDES = 8
_DTYPES: dict[PixelType, np.dtype[Any]] = {
    PixelType.UINT8: np.dtype(np.uint8),
    PixelType.FLOAT32: np.dtype("<f4"),
}


@dataclass(frozen=True, kw_only=True)
class InputLimits:
    """The limits of one request."""

    images: int
    image_bytes: int
    image_pixels: int


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
        InvalidArgumentError: there are none or too many, or some are too large.
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
) -> NDArray[np.uint8]:
    """Decodes PNG and JPEG files. Blocks.

    Returns:
        uint8 pixels, NHWC [images, 32, 32, 3].

    Raises:
        InvalidArgumentError: some cannot be decoded; it names them by index.
    """
    pixels = np.empty((len(files), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    violations = []
    for index, data in enumerate(files):
        try:
            pixels[index] = decode_image(data, max_pixels=limits.image_pixels)
        except ImageError as error:
            violations.append(Violation(field=f"{fields.files}[{index}]", description=str(error)))
    _raise_for(violations)
    return pixels


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
            float is not finite.
    """
    image_shape = _IMAGE_SHAPES[pixel_type]
    if len(shape) != len(image_shape) + 1 or tuple(shape[1:]) != image_shape:
        raise InvalidArgumentError.of(
            fields.shape,
            f"is {shown_shape(shape)}, but {pixel_type} pixels have the shape "
            f"[images, {', '.join(map(str, image_shape))}]",
        )
    images = shape[0]
    check_count(fields.shape, images, limits)
    dtype = _DTYPES[pixel_type]
    expected = images * _IMAGE_VALUES * dtype.itemsize
    if len(data) != expected:
        raise InvalidArgumentError.of(
            fields.data, f"has {len(data)} bytes, but the shape {list(shape)} takes {expected}"
        )
    pixels: Pixels = np.ndarray((images, *image_shape), dtype, data)
    if pixel_type is PixelType.FLOAT32 and not np.isfinite(pixels).all():
        raise InvalidArgumentError.of(fields.data, "has values that are not finite numbers")
    return pixels


def shown_shape(shape: Sequence[int]) -> str:
    """A shape for error messages, shortened if it is long."""
    return f"[{', '.join(map(str, shape[:_SHOWN_SIDES]))}{', ...' * (len(shape) > _SHOWN_SIDES)}]"


def check_count(field: str, count: int, limits: InputLimits) -> None:
    """Checks that there are images, and no more than the limit.

    Raises:
        InvalidArgumentError: there are none or too many.
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
