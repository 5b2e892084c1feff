"""Small files that need much time or memory to decode.

Each is a valid image of any size, so no check of the header's format refuses it.
"""

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_GREY, _PNG_RGBA = 0, 6
_SOS, _EOI = b"\xff\xda", b"\xff\xd9"


class _Jpeg(NamedTuple):
    """A JPEG file, split before each scan; each part includes the tables of its scan."""

    header: bytes
    scans: list[bytes]


def progressive_jpeg(scans: int, *, side: int = 4096, noise: bool = False) -> bytes:
    """Returns a grey progressive JPEG that repeats its last scan up to `scans` scans.

    Each scan makes a decoder visit all blocks of the image again. A scan of a flat image has about
    80 bytes; with `noise`, about one byte per 8 pixels.
    """
    jpeg = _cut(_encode(side, noise=noise))
    repeated = scans - len(jpeg.scans)
    return jpeg.header + b"".join(jpeg.scans) + jpeg.scans[-1] * repeated + _EOI


def progressive_jpeg_of_bytes(size: int, *, side: int = 4096, noise: bool = False) -> bytes:
    """Returns a progressive JPEG with as many scans as fit into `size` bytes."""
    jpeg = _cut(_encode(side, noise=noise))
    room = size - len(jpeg.header) - sum(map(len, jpeg.scans)) - len(_EOI)
    scans = len(jpeg.scans) + max(0, room // len(jpeg.scans[-1]))
    return progressive_jpeg(scans, side=side, noise=noise)


def one_bit_png(side: int = 4096) -> bytes:
    """Returns a black PNG with one bit per pixel: 2 KB for 16 million pixels."""
    return _png(side, depth=1, colour=_PNG_GREY, row_bytes=(side + 7) // 8)


def rgba_png(side: int = 4096) -> bytes:
    """Returns a transparent PNG with four bytes per pixel in memory: 64 MiB for 64 KB."""
    return _png(side, depth=8, colour=_PNG_RGBA, row_bytes=4 * side)


def _png(side: int, *, depth: int, colour: int, row_bytes: int) -> bytes:
    compressor = zlib.compressobj(9)
    rows = b"".join(compressor.compress(bytes(1 + row_bytes)) for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    return (
        _PNG_SIGNATURE
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", rows + compressor.flush())
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _encode(side: int, *, noise: bool) -> bytes:
    pixels = np.full((side, side), 128, np.uint8)
    if noise:
        pixels = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", progressive=True, quality=50)
    return file.getvalue()


def _cut(data: bytes) -> _Jpeg:
    """Splits a progressive JPEG of Pillow, whose scans each include their own tables."""
    scans: list[bytes] = []
    header = b""
    start = position = 2  # after the marker at the start of the file
    while data[position : position + 2] != _EOI:
        is_scan = data[position : position + 2] == _SOS
        if not scans and not header and data[position : position + 2] == b"\xff\xc4":
            header, start = data[:position], position
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if is_scan:
            position = _end_of_scan(data, position)
            scans.append(data[start:position])
            start = position
    return _Jpeg(header, scans)


def _end_of_scan(data: bytes, start: int) -> int:
    while data[start] != 0xFF or data[start + 1] == 0:  # 0xFF 0x00 is an escaped byte of pixel data
        start += 1
    return start
