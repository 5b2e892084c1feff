"""The containers that pixels come in: which parts of a PNG or JPEG file to decode.

A decoder is only as quiet as what it is fed. Text, colour profiles, animation
and metadata are where image libraries unpack, warn and fail in ways of their
own, and none of them says what the pixels are. So files are taken apart here,
and only what the pixels are made of goes on to the decoder.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

# What the pixels of a PNG are made of. An animated one's IDAT is its still image.
_PNG_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})

# Every JPEG marker is this byte and one more:
# https://www.w3.org/Graphics/JPEG/itu-t81.pdf, table B.1.
_PREFIX = 0xFF
_SOI, _EOI, _SOS, _COM, _TEM = 0xD8, 0xD9, 0xDA, 0xFE, 0x01
_RESTARTS = range(0xD0, 0xD8)
_APP0_JFIF, _APP1_EXIF, _APP14_ADOBE, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF

_EXIF_PREFIX = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
UPRIGHT = 1
_ORIENTATIONS = range(1, 9)


class ContainerError(ValueError):
    """The file is not one of an image, or not a whole one."""


class Container(NamedTuple):
    """An image file, taken apart."""

    format: Literal["PNG", "JPEG"]
    data: bytes
    """The file again, of what the pixels are made of alone."""
    orientation: int
    """EXIF's orientation, 1 to 8; 1 where none is given."""


def unpack(data: bytes) -> Container:
    """Takes a PNG or JPEG file apart.

    Raises:
        ContainerError: it is neither, or is cut short or damaged.
    """
    if not data:
        raise ContainerError("the image is empty")
    try:
        if data.startswith(PNG_SIGNATURE):
            return _unpack_png(data)
        if data.startswith(JPEG_SIGNATURE):
            return _unpack_jpeg(data)
    except (struct.error, IndexError):
        raise ContainerError("the image is truncated") from None
    raise ContainerError("the image is neither PNG nor JPEG")


def _unpack_png(data: bytes) -> Container:
    kept = [PNG_SIGNATURE]
    orientation = UPRIGHT
    for kind, chunk in _png_chunks(data):
        if kind in _PNG_PIXEL_CHUNKS:
            kept.append(chunk)
        elif kind == b"eXIf":
            orientation = _orientation(chunk[8:-4])
    return Container("PNG", b"".join(kept), orientation)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields each chunk's kind and its bytes: length, kind, content, checksum."""
    start = len(PNG_SIGNATURE)
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 8 + length
        (checksum,) = struct.unpack_from(">I", data, end)
        if kind in _PNG_PIXEL_CHUNKS and zlib.crc32(data[start + 4 : end]) != checksum:
            raise ContainerError(f"the image is corrupt: wrong checksum of its {kind.decode()}")
        yield kind, data[start : end + 4]
        start = end + 4


def _unpack_jpeg(data: bytes) -> Container:
    kept = [data[:2]]
    orientation = UPRIGHT
    start = 2
    while True:
        while data[start] == _PREFIX and data[start + 1] == _PREFIX:  # padding before a marker
            start += 1
        prefix, marker, length = struct.unpack_from(">BBH", data, start)
        if prefix != _PREFIX:
            raise ContainerError("the image is corrupt: a JPEG marker is missing")
        if marker == _SOS:  # from here on there are pixels
            kept.append(data[start:])
            return Container("JPEG", b"".join(kept), orientation)
        if marker in _RESTARTS or marker in (_SOI, _EOI, _TEM):
            raise ContainerError("the image is corrupt: it has no pixels")
        segment = data[start : start + 2 + length]
        if _shapes_pixels(marker):
            kept.append(segment)
        elif marker == _APP1_EXIF and segment[4:].startswith(_EXIF_PREFIX):
            orientation = _orientation(segment[4 + len(_EXIF_PREFIX) :])
        start += 2 + length


def _shapes_pixels(marker: int) -> bool:
    # JFIF's and Adobe's segments tell the colour space; no other application's does.
    application = _APP0_JFIF <= marker <= _APP15
    return marker in (_APP0_JFIF, _APP14_ADOBE) or not (application or marker == _COM)


def _orientation(exif: bytes) -> int:
    """Returns the orientation in the first directory of EXIF's TIFF structure.

    Damaged metadata is no reason to refuse sound pixels: it means upright.
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return UPRIGHT
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, directory)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, directory + 2 + 12 * entry)
            if tag == _ORIENTATION_TAG:
                return value if value in _ORIENTATIONS else UPRIGHT
    except struct.error:
        pass
    return UPRIGHT
