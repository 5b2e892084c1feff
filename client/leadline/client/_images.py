"""What callers have as images, made into requests of a bearable size.

Three kinds can be sent: image files (PNG or JPEG), uint8 pixels and float32
pixels that are already normalised. One call sends one kind: pixels in [0, 255]
beside pixels in [-1, 1] would be a mistake that no error ever shows.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from leadline.client._channel import MAX_MESSAGE_BYTES
from leadline.client._errors import invalid
from leadline.v1 import inference_service_pb2 as pb

if TYPE_CHECKING:
    import numpy as np


@runtime_checkable
class SupportsArray(Protocol):
    """An array of any library: numpy, torch, jax."""

    def __array__(self, dtype: Any = None) -> Any: ...


@runtime_checkable
class SupportsSave(Protocol):
    """A picture of Pillow's kind."""

    @property
    def mode(self) -> str: ...

    def save(self, fp: Any, format: str | None = None) -> None: ...  # noqa: A002 - Pillow's name


Image: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | SupportsArray | SupportsSave
)
Images: TypeAlias = Image | Iterable[Image]

REQUEST_BYTES = 8 * 1024 * 1024
REQUEST_IMAGES = 1024

# What else is in a message beside its images.
_LARGEST_IMAGE = MAX_MESSAGE_BYTES - 64 * 1024

_ENCODED = "image files"
_UINT8 = "uint8 pixels"
_FLOAT32 = "float32 pixels"

_SHAPES = (
    "wanted: uint8 [32, 32, 3] or [images, 32, 32, 3] (RGB, 0 to 255), or float32 [3, 32, 32] or "
    "[images, 3, 32, 32] (RGB, normalised to [-1, 1])"
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One image or an array of them, not yet loaded where it is a file.

    Attributes:
        kind: what it can be sent together with.
        sizes: bytes of each of its images.
        load: the bytes of its images from a first up to a last, one after the other.
    """

    kind: str
    sizes: Sequence[int]
    load: Callable[[int, int], bytes]


@dataclass(frozen=True)
class Piece:
    """A run of images of one source: those from `first` up to `last`."""

    source: Source
    first: int
    last: int


def chunks(images: Images) -> Iterator[Callable[[], pb.PredictRequest]]:
    """The requests that the images make, in order, each of which is built when it is called.

    Files are read one request at a time; that they are there is checked first.

    Raises:
        InvalidArgumentError: there is no image, one is too large to be sent,
            an array has another shape or type, or kinds are mixed.
        OSError: a file is not there.
    """
    sources = [_source(image, f"images[{i}]") for i, image in enumerate(_listed(images))]
    if not any(source.sizes for source in sources):
        raise invalid("images", "there are none")
    kinds = {source.kind for source in sources}
    if len(kinds) > 1:
        raise invalid("images", f"{' and '.join(sorted(kinds))} in one call: use a call for each")
    return _chunked(sources)


def _listed(images: Images) -> list[Image]:
    if isinstance(images, str | os.PathLike | bytes | bytearray | memoryview):
        return [images]
    if isinstance(images, SupportsArray | SupportsSave):
        return [images]
    if isinstance(images, Iterable):
        return list(images)
    raise invalid("images", f"cannot be made from {type(images).__name__}")


def _chunked(sources: Iterable[Source]) -> Iterator[Callable[[], pb.PredictRequest]]:
    pieces: list[Piece] = []
    count = size = 0
    for source in sources:
        first = 0
        for i, image_size in enumerate(source.sizes):
            if count and (count == REQUEST_IMAGES or size + image_size > REQUEST_BYTES):
                yield _builder([*pieces, Piece(source, first, i)])
                pieces, first, count, size = [], i, 0, 0
            count += 1
            size += image_size
        pieces.append(Piece(source, first, len(source.sizes)))
    yield _builder(pieces)


def _builder(pieces: Sequence[Piece]) -> Callable[[], pb.PredictRequest]:
    pieces = [piece for piece in pieces if piece.first < piece.last]
    return lambda: _request(pieces)


def _request(pieces: Sequence[Piece]) -> pb.PredictRequest:
    loaded = [piece.source.load(piece.first, piece.last) for piece in pieces]
    kind = pieces[0].source.kind
    if kind == _ENCODED:
        return pb.PredictRequest(encoded=pb.EncodedImages(images=loaded))
    count = sum(piece.last - piece.first for piece in pieces)
    tensor = pb.Tensor(data=b"".join(loaded))
    if kind == _UINT8:
        tensor.data_type = pb.DATA_TYPE_UINT8
        tensor.shape.extend((count, 32, 32, 3))
    else:
        tensor.data_type = pb.DATA_TYPE_FLOAT32
        tensor.shape.extend((count, 3, 32, 32))
    return pb.PredictRequest(tensor=tensor)


def _source(image: object, field: str) -> Source:
    if isinstance(image, str | os.PathLike):
        return _file(Path(image), field)
    if isinstance(image, bytes | bytearray | memoryview):
        return _encoded(bytes(image), field)
    if isinstance(image, SupportsSave):
        return _encoded(_saved(image, field), field)
    if isinstance(image, SupportsArray):
        return _array(image, field)
    raise invalid(
        field,
        f"a {type(image).__name__} is no image: give a path, the bytes of a PNG or JPEG file, "
        "an array or a Pillow image",
    )


def _file(path: Path, field: str) -> Source:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the images in it")
    size = path.stat().st_size
    _check_size(size, field)
    return Source(kind=_ENCODED, sizes=[size], load=lambda _first, _last: path.read_bytes())


def _encoded(data: bytes, field: str) -> Source:
    _check_size(len(data), field)
    return Source(kind=_ENCODED, sizes=[len(data)], load=lambda _first, _last: data)


def _check_size(size: int, field: str) -> None:
    if size > _LARGEST_IMAGE:
        raise invalid(field, f"{size:,} bytes are more than fit a request ({_LARGEST_IMAGE:,})")


def _saved(image: SupportsSave, field: str) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save(buffer, format="PNG")
    except (OSError, ValueError) as error:
        # PNG knows no CMYK, say: Pillow's text names the mode.
        raise invalid(field, f"cannot be sent as PNG: {error}; convert it to RGB") from error
    return buffer.getvalue()


def _array(image: SupportsArray, field: str) -> Source:
    array = _normal_form(_as_numpy(image, field), field)
    image_bytes = array[:1].nbytes

    def load(first: int, last: int) -> bytes:
        return array[first:last].tobytes()

    kind = _UINT8 if array.dtype.kind == "u" else _FLOAT32
    return Source(kind=kind, sizes=[image_bytes] * len(array), load=load)


def _as_numpy(image: SupportsArray, field: str) -> np.ndarray[Any, Any]:
    import numpy as np  # noqa: PLC0415 - only those who send arrays wait for it

    try:
        return np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:
        # A tensor on a GPU, or one that needs gradients: torch's text says what to do.
        raise invalid(field, f"cannot be made an array: {error}") from error


def _normal_form(array: np.ndarray[Any, Any], field: str) -> np.ndarray[Any, Any]:
    """The array with its images first, in the byte order of the wire."""
    wanted = {("u", 1): (32, 32, 3), ("f", 4): (3, 32, 32)}.get(
        (array.dtype.kind, array.dtype.itemsize)
    )
    if wanted is None or array.shape[-3:] != wanted or array.ndim not in (3, 4):
        raise invalid(field, f"{array.dtype} {list(array.shape)}; {_SHAPES}")
    array = array.reshape(-1, *wanted)
    return array.astype(array.dtype.newbyteorder("<"), copy=False)
