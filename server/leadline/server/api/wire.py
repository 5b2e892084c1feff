"""The parts of Protobuf's wire format that the server reads and writes without the library.

Source: protobuf's own "Encoding" (protobuf.dev/programming-guides/encoding).
"""

import functools

VARINT, FIXED64, BYTES, START_GROUP, END_GROUP, FIXED32 = range(6)
"""The wire types. `BYTES` is for bytes, strings, messages and packed numbers."""

SIZES = {FIXED64: 8, FIXED32: 4}
"""The size in bytes of the fixed-size numbers, by wire type."""

_CONTINUES = 0x80
_VARINT_BYTES = 10

Data = bytes | memoryview


@functools.lru_cache(maxsize=1_024)
def field_prefix(number: int, length: int) -> bytes:
    """The tag and the length that precede a field's bytes."""
    return _varint(number << 3 | BYTES) + _varint(length)


def read_varint(data: Data, position: int) -> tuple[int, int]:
    """The number at a position, and the position after it.

    Raises:
        ValueError: the number is truncated, or has more than ten bytes.
    """
    value = 0
    for index, byte in enumerate(data[position : position + _VARINT_BYTES]):
        value |= (byte & ~_CONTINUES) << 7 * index
        if byte < _CONTINUES:
            return value, position + index + 1
    raise ValueError("there is no varint at this position")


def content(data: Data, position: int, kind: int) -> tuple[int, int]:
    """The start and end of the content of a field; the end may exceed the data.

    Raises:
        ValueError: the field is a group, or its wire type does not exist.
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
