"""Decodes image files to pixels, and encodes pixels as image files.

Training, prediction and inspection use the same functions, so that a
network sees images decoded exactly as in training.
"""

import io
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin, PngImagePlugin

from leadline.models._containers import UPRIGHT, Container, ContainerError, unpack

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_SIZE",
    "DecodingStoppedError",
    "EncodedImage",
    "ImageError",
    "decode_image",
    "encode_png",
    "open_image",
]

IMAGE_SIZE: Final = 32
"""Height and width, in pixels, of every image that a network sees."""

DEFAULT_MAX_PIXELS: Final = 4096 * 4096
"""The most pixels, width times height, of an image."""

MAX_SIDE: Final = 1 << 14
"""The largest height or width of an image: resizing takes memory and time for each row."""

# The most scans of a JPEG that has the most pixels; a smaller one may have more. A scan
# takes a decoder about two nanoseconds a pixel.
_SCANS_OF_LARGEST = 16

# This many further scans of a JPEG take as long as its first.
_SCANS_PER_PASS = 8

_READERS = {"PNG": PngImagePlugin.PngImageFile, "JPEG": JpegImagePlugin.JpegImageFile}

# The transposition that makes each orientation upright:
# https://exiftool.org/TagNames/EXIF.html#Orientation
_UPRIGHT_BY = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_ON_THEIR_SIDE = range(5, 9)


class ImageError(ValueError):
    """The bytes are not an acceptable image: the message says why."""


class DecodingStoppedError(Exception):
    """The decoding of an image was stopped before its end."""


def decode_image(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Decodes a PNG or JPEG file to RGB, uint8 [32, 32, 3], as `EncodedImage.decode` does.

    Raises:
        ImageError: see `open_image` and `EncodedImage.decode`.
    """
    return open_image(data, max_pixels=max_pixels).decode()


def open_image(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> "EncodedImage":
    """Reads the header of a PNG or JPEG file.

    The header gives the cost of decoding, so an image that is too large is rejected undecoded.

    Args:
        data: the whole file.
        max_pixels: the most pixels, width times height. Also limits the scans of a JPEG,
            each of which covers all pixels.

    Raises:
        ImageError: the file is empty, of another format, too large, truncated or corrupt.
    """
    try:
        container = unpack(data)
    except ContainerError as error:
        raise ImageError(str(error)) from None
    _check_size(container, max_pixels)
    return EncodedImage(container)


class EncodedImage:
    """A PNG or JPEG file that is not decoded yet.

    Attributes:
        work: the number of pixels, counted again for every eight scans of a JPEG. Decoding
            takes 10 to 40 nanoseconds for each.
        aspect_ratio: the width divided by the height, after rotation to upright.
    """

    __slots__ = ("_container", "aspect_ratio", "work")

    def __init__(self, container: Container) -> None:
        self._container = container
        ratio = container.width / container.height
        self.aspect_ratio = 1 / ratio if container.orientation in _ON_THEIR_SIDE else ratio
        self.work = container.width * container.height * (1 + container.scans // _SCANS_PER_PASS)

    def decode(self, is_wanted: Callable[[], bool] | None = None) -> npt.NDArray[np.uint8]:
        """Decodes the image to RGB, uint8 [32, 32, 3].

        - Other sizes are resized with Pillow's Lanczos filter, which averages over
          all pixels when it shrinks; the aspect ratio is not kept.
        - EXIF's orientation is applied, so that photographs are upright. Colour
          profiles and gamma are ignored.
        - Transparent pixels are blended with white. 16-bit values lose their lower
          byte. Greyscale, palette and CMYK become RGB. An animation gives its still
          image.

        Args:
            is_wanted: whether to continue; called before each 64 KB of the file.

        Raises:
            DecodingStoppedError: `is_wanted` returned false.
            ImageError: the file is truncated or corrupt. Raises no other exception and
                no warning.
        """
        container = self._container
        data = container.pixel_data()
        file = io.BytesIO(data) if is_wanted is None else _StoppableFile(data, is_wanted)
        try:
            with _READERS[container.format](file) as image:
                _check_header(image, container)
                return _upright(_opaque(_resized(_plain(image))), container.orientation)
        except (ImageError, DecodingStoppedError):
            raise
        except Exception as error:  # noqa: BLE001 - what Pillow raises is not documented
            raise ImageError(f"the {container.format} image cannot be decoded: {error}") from None


class _StoppableFile(io.BytesIO):
    def __init__(self, data: bytes, is_wanted: Callable[[], bool]) -> None:
        super().__init__(data)
        self._is_wanted = is_wanted

    def read(self, size: int | None = -1, /) -> bytes:
        if not self._is_wanted():
            raise DecodingStoppedError
        return super().read(size)


def encode_png(image: npt.NDArray[np.uint8]) -> bytes:
    """Encodes RGB pixels, uint8 [height, width, 3], as a PNG file, losslessly.

    Raises:
        ValueError: the array is of another shape or type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:  # noqa: PLR2004
        raise ValueError(
            f"an image is uint8 [height, width, 3], but this is {image.dtype} {list(image.shape)}"
        )
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "PNG")
    return file.getvalue()


def _check_size(image: Container, max_pixels: int) -> None:
    width, height = image.width, image.height
    pixels = width * height
    if not pixels:
        raise ImageError(f"the image has no pixels: it is {width}x{height}")
    if pixels > max_pixels:
        raise ImageError(
            f"the image is too large: {width}x{height} are {pixels:,} pixels, "
            f"and at most {max_pixels:,} are allowed"
        )
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            f"the image is too long: it is {width}x{height}, and a side may have at most "
            f"{MAX_SIDE:,} pixels"
        )
    if pixels * image.scans > max_pixels * _SCANS_OF_LARGEST:
        raise ImageError(
            f"the image has {image.scans} scans, but with {width}x{height} pixels it may have "
            f"{max_pixels * _SCANS_OF_LARGEST // pixels}: save it as a baseline JPEG"
        )


def _check_header(image: Image.Image, container: Container) -> None:
    if image.size != (container.width, container.height):
        raise ImageError("the image is corrupt: it has two headers")


def _plain(image: Image.Image) -> Image.Image:
    """Returns the image as RGBA if it has transparent pixels, else as RGB or L."""
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip
        high_bytes = np.asarray(image).astype(np.uint32) >> 8
        return Image.fromarray(high_bytes.astype(np.uint8))
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _resized(image: Image.Image) -> Image.Image:
    # Resized first, so that later steps process few pixels. Pillow weights colours
    # by their opacity here, so that invisible pixels do not affect the edges.
    size = (IMAGE_SIZE, IMAGE_SIZE)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode == "L":
        return image.convert("RGB")
    page = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(page, image).convert("RGB")


def _upright(image: Image.Image, orientation: int) -> npt.NDArray[np.uint8]:
    if orientation != UPRIGHT:
        image = image.transpose(_UPRIGHT_BY[orientation])
    # Takes half the time of `np.array(image)`.
    pixels = np.frombuffer(image.tobytes(), np.uint8).reshape(IMAGE_SIZE, IMAGE_SIZE, 3)
    return pixels.copy()  # bytes are read-only
