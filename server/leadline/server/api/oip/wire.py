"""Protobuf's wire format, as far as tensors are read and written past the library.

Source: protobuf's own "Encoding" (protobuf.dev/programming-guides/encoding).
"""

import functools

BYTES = 2
"""The wire type of bytes, strings and messages."""

_CONTINUES = 0x80
_MOST_VARINT_BITS = 64


@functools.lru_cache(maxsize=1_024)
def field_prefix(number: int, length: int) -> bytes:
    """What precedes `length` bytes of the field with a number."""
    return _varint(number << 3 | BYTES) + _varint(length)


def read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """The number at a position, and where it ends.

    Raises:
        ValueError: the data end within it, or it has more than 64 bits.
    """
    value = 0
    for shift in range(0, _MOST_VARINT_BITS, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & ~_CONTINUES) << shift
        if not byte & _CONTINUES:
            return value, position
    raise ValueError("there is no varint at this position")


def _varint(value: int) -> bytes:
    written = bytearray()
    while value >= _CONTINUES:
        written.append(value & 0x7F | _CONTINUES)
        value >>= 7
    written.append(value)
    return bytes(written)
