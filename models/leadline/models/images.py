"""Image files to pixels, and pixels to image files.

The same functions serve training, prediction and inspection, so that a
network is asked about exactly what it was trained on.
"""

import io
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin, PngImagePlugin

from leadline.models._containers import UPRIGHT, ContainerError, unpack

__all__ = ["DEFAULT_MAX_PIXELS", "IMAGE_SIZE", "ImageError", "decode_image", "encode_png"]

IMAGE_SIZE: Final = 32
"""Height and width, in pixels, of every image that a network sees."""

DEFAULT_MAX_PIXELS: Final = 4096 * 4096
"""Width times height above which an image is refused."""

MAX_SIDE: Final = 1 << 14
"""Height or width above which an image is refused: resizing takes memory and time by the side."""

_READERS = {"PNG": PngImagePlugin.PngImageFile, "JPEG": JpegImagePlugin.JpegImageFile}

# https://exiftool.org/TagNames/EXIF.html#Orientation: what makes each one upright.
_UPRIGHT_BY = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """The bytes are no image that can be taken: the message says why."""


def decode_image(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Decodes a PNG or JPEG file to RGB, uint8 [32, 32, 3].

    - Another size is resized with Pillow's Lanczos filter, which averages over
      all pixels where it shrinks; the aspect ratio is not kept.
    - EXIF's orientation is applied, so that a photograph is seen as people
      see it. Colour profiles and gamma are not.
    - Transparent pixels are laid over white. 16-bit values lose their lower
      byte. Greyscale, palette and CMYK become RGB. An animation is its still.

    Args:
        data: the whole file.
        max_pixels: width times height above which the image is refused. The
            header tells, so a decompression bomb is refused undecoded.

    Raises:
        ImageError: the file is empty, of another format, too large, truncated
            or corrupt. No other exception and no warning comes out.
    """
    try:
        container = unpack(data)
    except ContainerError as error:
        raise ImageError(str(error)) from None
    try:
        with _READERS[container.format](io.BytesIO(container.data)) as image:
            _check_size(image, max_pixels)
            return _upright(_opaque(_resized(_plain(image))), container.orientation)
    except ImageError:
        raise
    except Exception as error:  # noqa: BLE001 - what Pillow raises on bad bytes is not documented
        raise ImageError(f"the {container.format} image cannot be decoded: {error}") from None


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


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"the image has no pixels: it is {width}x{height}")
    if width * height > max_pixels:
        raise ImageError(
            f"the image is too large: {width}x{height} are {width * height:,} pixels, "
            f"and at most {max_pixels:,} are allowed"
        )
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            f"the image is too long: it is {width}x{height}, and a side may have at most "
            f"{MAX_SIDE:,} pixels"
        )


def _plain(image: Image.Image) -> Image.Image:
    """Returns the image as RGBA where it has transparent pixels, and as RGB elsewhere."""
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip
        high_bytes = np.asarray(image).astype(np.uint32) >> 8
        return Image.fromarray(high_bytes.astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("RGB")


def _resized(image: Image.Image) -> Image.Image:
    # First of all, so that what follows has few pixels to do. Pillow weighs colours
    # by their opacity here, so that what is invisible does not show at the edges.
    size = (IMAGE_SIZE, IMAGE_SIZE)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    page = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(page, image).convert("RGB")


def _upright(image: Image.Image, orientation: int) -> npt.NDArray[np.uint8]:
    if orientation != UPRIGHT:
        image = image.transpose(_UPRIGHT_BY[orientation])
    return np.array(image, dtype=np.uint8)
