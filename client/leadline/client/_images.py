"""Prepares the images of callers for requests.

There are four kinds: image files (PNG or JPEG), uint8 pixels, normalised
float32 pixels, and names of images on the server. A request has images of one
kind. A call may mix kinds, because each image determines its kind.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias, runtime_checkable

from leadline.client._channel import MAX_MESSAGE_BYTES
from leadline.client._errors import InvalidArgumentError, invalid
from leadline.v1.inspection_service_pb2 import ComparedExample, Example, LikelyLabelError

if TYPE_CHECKING:
    import numpy as np


@runtime_checkable
class SupportsArray(Protocol):
    """An array of any library: numpy, torch, jax."""

    def __array__(self, dtype: Any = None) -> Any: ...


@runtime_checkable
class SupportsSave(Protocol):
    """A Pillow image."""

    @property
    def mode(self) -> str: ...

    def save(self, fp: Any, format: str | None = None) -> None: ...  # noqa: A002 - Pillow's name


NamedExample: TypeAlias = Example | ComparedExample | LikelyLabelError
"""An image of a dataset, from the inspection calls."""

Image: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | SupportsArray
    | SupportsSave
    | NamedExample
)
Images: TypeAlias = Image | Iterable[Image]

# Leaves room for the other fields of a message.
_LARGEST_IMAGE = MAX_MESSAGE_BYTES - 64 * 1024

# The form in the server's listings. A path of this form needs "./" before it.
_EXAMPLE_NAME = re.compile(r"datasets/[0-9a-f]{64}/(train|test)/[0-9]+")

_SHAPES = (
    "expected uint8 [32, 32, 3] or [images, 32, 32, 3] (RGB, 0 to 255), or float32 [3, 32, 32] or "
    "[images, 3, 32, 32] (RGB, normalised to [-1, 1])"
)


class Kind(Enum):
    """The kind of images in a request."""

    ENCODED = "image files"
    UINT8 = "uint8 pixels"
    FLOAT32 = "float32 pixels"
    NAME = "names of images"


@dataclass(frozen=True, kw_only=True)
class LoadableImage:
    """One image; a file is not loaded yet.

    Attributes:
        index: the index among all images of a call.
        kind: the kind of request; None for an image that cannot be loaded, which
            fits any request.
        size: the size in bytes.
        load: returns the bytes to send; raises OSError or InvalidArgumentError.
    """

    index: int
    kind: Kind | None
    size: int
    load: Callable[[], bytes]


def listed(images: Images) -> Iterable[Image]:
    """The images of a call as an iterable, even for a single image.

    Raises:
        InvalidArgumentError: the argument is not an image or an iterable.
    """
    if isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | NamedExample):
        return [images]
    if isinstance(images, SupportsArray | SupportsSave):
        return [images]
    if isinstance(images, Iterable):
        return images
    raise invalid("images", f"cannot be made from {type(images).__name__}")


def source(image: object, index: int) -> list[LoadableImage]:
    """The images in one element of the caller's images; `index` is the index of the first.

    Raises:
        InvalidArgumentError: the element is not an image, is too large, or is an
            array of another shape or type.
        OSError: the file does not exist, or is not a regular file.
    """
    field = f"images[{index}]"
    if isinstance(image, NamedExample):
        return [_named(image.name, index)]
    if isinstance(image, str) and _EXAMPLE_NAME.fullmatch(image):
        return [_named(image, index)]
    if isinstance(image, str | os.PathLike):
        return [_file(Path(image), index)]
    if isinstance(image, bytes | bytearray | memoryview):
        return [_encoded(bytes(image), index)]
    if isinstance(image, SupportsSave):
        return [_encoded(_saved(image, field), index)]
    if isinstance(image, SupportsArray):
        return list(_rows(_normal_form(_as_numpy(image, field), field), index))
    raise invalid(
        field,
        f"a {type(image).__name__} is not an image: give a path, the bytes of a PNG or JPEG file, "
        "an array, a Pillow image or an example",
    )


def unloadable(error: OSError | InvalidArgumentError, index: int) -> list[LoadableImage]:
    """An image whose loading raises this error."""

    def load() -> NoReturn:
        raise error

    return [LoadableImage(index=index, kind=None, size=0, load=load)]


def _named(name: str, index: int) -> LoadableImage:
    data = name.encode()
    return LoadableImage(index=index, kind=Kind.NAME, size=len(data), load=lambda: data)


def _file(path: Path, index: int) -> LoadableImage:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{path} is a folder: give the images in it")
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe blocks until something writes to it.
        raise OSError(f"{path} is not a regular file: read it, and give its bytes")
    _check_size(status.st_size, f"images[{index}]")
    return LoadableImage(index=index, kind=Kind.ENCODED, size=status.st_size, load=path.read_bytes)


def _encoded(data: bytes, index: int) -> LoadableImage:
    _check_size(len(data), f"images[{index}]")
    return LoadableImage(index=index, kind=Kind.ENCODED, size=len(data), load=lambda: data)


def _check_size(size: int, field: str) -> None:
    if size > _LARGEST_IMAGE:
        raise invalid(field, f"{size:,} bytes are more than a request holds ({_LARGEST_IMAGE:,})")


def _saved(image: SupportsSave, field: str) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save(buffer, format="PNG")
    except (OSError, ValueError) as error:
        # For example, PNG has no CMYK. Pillow's message names the mode.
        raise invalid(field, f"cannot be sent as PNG: {error}; convert it to RGB") from error
    return buffer.getvalue()


def _rows(array: np.ndarray[Any, Any], first: int) -> Iterator[LoadableImage]:
    kind = Kind.UINT8 if array.dtype.kind == "u" else Kind.FLOAT32
    for index, row in enumerate(array, start=first):
        load = row.tobytes if kind is Kind.UINT8 else partial(_finite_bytes, row, index)
        yield LoadableImage(index=index, kind=kind, size=row.nbytes, load=load)


def _finite_bytes(row: np.ndarray[Any, Any], index: int) -> bytes:
    import numpy as np  # noqa: PLC0415 - only arrays need it

    # Otherwise the server would refuse the whole request.
    if not np.isfinite(row).all():
        raise invalid(f"images[{index}]", "has values that are not finite numbers")
    return row.tobytes()


def _as_numpy(image: SupportsArray, field: str) -> np.ndarray[Any, Any]:
    import numpy as np  # noqa: PLC0415 - only arrays need it

    try:
        return np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:
        # A tensor on a GPU or with gradients: torch's message says what to do.
        raise invalid(field, f"cannot be made an array: {error}") from error


def _normal_form(array: np.ndarray[Any, Any], field: str) -> np.ndarray[Any, Any]:
    """Converts an array to [images, ...], in the byte order of the wire."""
    shape = {("u", 1): (32, 32, 3), ("f", 4): (3, 32, 32)}.get(
        (array.dtype.kind, array.dtype.itemsize)
    )
    if shape is None or array.shape[-3:] != shape or array.ndim not in (3, 4):
        raise invalid(field, f"{array.dtype} {list(array.shape)}; {_SHAPES}")
    array = array.reshape(-1, *shape)
    return array.astype(array.dtype.newbyteorder("<"), copy=False)
