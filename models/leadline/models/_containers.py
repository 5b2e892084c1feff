"""Parses PNG and JPEG files, and keeps only the parts that hold pixels.

Image libraries also unpack text, colour profiles, animations and metadata. Each
of these can make a decoder warn or fail, and none affects the pixels. So this
module splits a file into its parts, and passes only the pixel data to the decoder.
"""

import re
import struct
import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

# The chunks that hold a PNG's pixels. The IDAT of an animated PNG is its still image.
_PNG_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})

# Every JPEG marker is this byte and one more:
# https://www.w3.org/Graphics/JPEG/itu-t81.pdf, table B.1.
_PREFIX = 0xFF
_SOI, _EOI, _SOS, _COM, _TEM = 0xD8, 0xD9, 0xDA, 0xFE, 0x01
_RESTARTS = range(0xD0, 0xD8)
_APP0_JFIF, _APP1_EXIF, _APP14_ADOBE, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF
_SOF0, _SOF15, _NO_SOF = 0xC0, 0xCF, (0xC4, 0xC8, 0xCC)

# A marker between the pixels of a JPEG: not an escaped byte, a restart or padding.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_PADDING = re.compile(rb"\xff+")
_SEARCHED_AT_ONCE = 1 << 20  # the GIL is held for a millisecond or two

MAX_SCANS = 100
"""The most scans of a JPEG. Encoders write about ten."""

# A file may have 256 parts, and one more for each 512 bytes. Each takes 1 to 2 microseconds.
_PARTS, _BYTES_PER_PART = 256, 512

_EXIF_PREFIX = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
UPRIGHT = 1
_ORIENTATIONS = range(1, 9)


class ContainerError(ValueError):
    """The file is not a complete PNG or JPEG file."""


class Container(NamedTuple):
    """An image file, split into its parts."""

    format: Literal["PNG", "JPEG"]
    data: bytes
    """The whole file."""
    kept: Sequence[int]
    """Offsets of the pixel data: start and end of the first section, of the second, and so on."""
    width: int
    """In pixels, as the header says."""
    height: int
    orientation: int
    """EXIF's orientation, 1 to 8; 1 if the file has none."""
    scans: int = 1
    """How often a decoder passes over the pixels."""

    def pixel_data(self) -> bytes:
        """Returns the file without the parts that hold no pixel data."""
        if len(self.kept) == 2:  # noqa: PLR2004 - one start and one end
            return self.data[self.kept[0] : self.kept[1]]
        starts, ends = self.kept[::2], self.kept[1::2]
        return b"".join(self.data[start:end] for start, end in zip(starts, ends, strict=True))


def unpack(data: bytes) -> Container:
    """Splits a PNG or JPEG file into its parts.

    Raises:
        ContainerError: the file has another format, too many parts, or is truncated or damaged.
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
    start = len(PNG_SIGNATURE)
    kept = [0, start]
    width = height = 0
    exif = b""
    for _ in range(_most_parts(data)):
        length, kind = struct.unpack_from(">I4s", data, start)
        content, end = start + 8, start + 8 + length
        (checksum,) = struct.unpack_from(">I", data, end)
        if kind in _PNG_PIXEL_CHUNKS:
            if zlib.crc32(data[start + 4 : end]) != checksum:
                raise ContainerError(
                    f"the image is corrupt: the checksum of {kind.decode()} is wrong"
                )
            _keep(kept, start, end + 4)
            if kind == b"IHDR":
                width, height = struct.unpack_from(">II", data, content)
            elif kind == b"IEND":
                return Container("PNG", data, kept, width, height, _orientation(exif))
        elif kind == b"eXIf":
            exif = data[content:end]
        start = end + 4
    raise _too_many_parts()


def _unpack_jpeg(data: bytes) -> Container:
    start = 2
    kept = [0, start]
    width = height = 0
    exif = b""
    for _ in range(_most_parts(data)):
        prefix, marker, length = struct.unpack_from(">BBH", data, start)
        if prefix != _PREFIX:
            raise ContainerError("the image is corrupt: a JPEG marker is missing")
        if marker == _PREFIX:  # padding before a marker
            start = _end_of_padding(data, start)
            continue
        if marker == _SOS:  # pixels begin here
            end, scans = _end_of_pixels(data, start)
            _keep(kept, start, end)
            return Container("JPEG", data, kept, width, height, _orientation(exif), scans)
        if marker in _RESTARTS or marker in (_SOI, _EOI, _TEM):
            raise ContainerError("the image is corrupt: it has no pixels")
        end = start + 2 + length
        if _shapes_pixels(marker):
            _keep(kept, start, end)
            if _SOF0 <= marker <= _SOF15 and marker not in _NO_SOF:
                height, width = struct.unpack_from(">HH", data, start + 5)
        elif marker == _APP1_EXIF and data.startswith(_EXIF_PREFIX, start + 4):
            exif = data[start + 4 + len(_EXIF_PREFIX) : end]
        start = end
    raise _too_many_parts()


def _most_parts(data: bytes) -> int:
    return _PARTS + len(data) // _BYTES_PER_PART


def _too_many_parts() -> ContainerError:
    return ContainerError("the image is made of too many small parts: save it again")


def _keep(kept: list[int], start: int, end: int) -> None:
    if kept[-1] == start:
        kept[-1] = end
    else:
        kept += (start, end)


def _end_of_padding(data: bytes, start: int) -> int:
    padding = _PADDING.match(data, start)
    return padding.end() - 1 if padding else start


def _end_of_pixels(data: bytes, start: int) -> tuple[int, int]:
    """Returns where a JPEG's pixels end, and the number of its scans; the first starts here.

    Follows the markers as libjpeg does. Data after the end, such as the video of a
    motion photo, is not part of the image.
    """
    position, scans = start, 0
    for _ in range(_most_parts(data)):
        position = _next_marker(data, position)
        if position == len(data):
            return position, scans
        marker = data[position + 1]
        position += 2
        if marker == _EOI:
            return position, scans
        if marker < _SOF0 or marker == _SOI:  # damage, which has no length
            continue
        if marker == _SOS:
            scans += 1
            if scans > MAX_SCANS:
                raise ContainerError(
                    f"the image has more than {MAX_SCANS} scans: save it as a baseline JPEG"
                )
        (length,) = struct.unpack_from(">H", data, position)
        position += length
    raise _too_many_parts()


def _next_marker(data: bytes, start: int) -> int:
    """Returns the offset of the next marker in a JPEG's pixels, or the file's length."""
    while start < len(data):
        match = _MARKER.search(data, start, start + _SEARCHED_AT_ONCE + 1)
        if match:
            return match.start()
        start += _SEARCHED_AT_ONCE
    return len(data)


def _shapes_pixels(marker: int) -> bool:
    # Only JFIF's and Adobe's application segments define the colour space.
    application = _APP0_JFIF <= marker <= _APP15
    return marker in (_APP0_JFIF, _APP14_ADOBE) or not (application or marker == _COM)


def _orientation(exif: bytes) -> int:
    """Returns the orientation in the first directory of EXIF's TIFF structure.

    Damaged metadata means upright, because the pixels may still be intact.
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
