"""Protobuf's wire format, as far as messages are read and written past the library.

Source: protobuf's own "Encoding" (protobuf.dev/programming-guides/encoding).
"""

import functools

VARINT, FIXED64, BYTES, START_GROUP, END_GROUP, FIXED32 = range(6)
"""The wire types. `BYTES` is that of bytes, strings, messages and packed numbers."""

SIZES = {FIXED64: 8, FIXED32: 4}
"""The bytes of a number of fixed size, by its wire type."""

_CONTINUES = 0x80
_VARINT_BYTES = 10

Data = bytes | memoryview


@functools.lru_cache(maxsize=1_024)
def field_prefix(number: int, length: int) -> bytes:
    """What precedes `length` bytes of the field with a number."""
    return _varint(number << 3 | BYTES) + _varint(length)


def read_varint(data: Data, position: int) -> tuple[int, int]:
    """The number at a position, and where it ends.

    Raises:
        ValueError: the data end within it, or it has more than ten bytes.
    """
    value = 0
    for index, byte in enumerate(data[position : position + _VARINT_BYTES]):
        value |= (byte & ~_CONTINUES) << 7 * index
        if byte < _CONTINUES:
            return value, position + index + 1
    raise ValueError("there is no varint at this position")


def content(data: Data, position: int, kind: int) -> tuple[int, int]:
    """Where the content of a field of a wire type begins and ends; the end may exceed the data.

    Raises:
        ValueError: it is a group, or there is no such wire type.
    """
    if kind == BYTES:
        length, position = read_varint(data, position)
        return position, position + length
    if kind == VARINT:
        return position, read_varint(data, position)[1]
    if kind in SIZES:
        return position, position + SIZES[kind]
    raise ValueError("a group, or a wire type that does not exist")


def _varint(value: int) -> bytes:
    written = bytearray()
    while value >= _CONTINUES:
        written.append(value & 0x7F | _CONTINUES)
        value >>= 7
    written.append(value)
    return bytes(written)
