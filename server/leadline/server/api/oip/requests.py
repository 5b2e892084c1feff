"""Reads ModelInferRequests without copying large tensors.

Protobuf copies the bytes of a field twice, once into its message and once out
of it. For many images only the network takes longer than that.
"""

from collections.abc import Sequence
from typing import NamedTuple

from leadline.oip.v2.open_inference_pb2 import ModelInferRequest

# From this many bytes on, finding the tensors in Python is faster.
_LARGE = 1 << 16

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_RAW_CONTENTS = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | _BYTES
_MOST_VARINT_BITS = 64

# Clients send a dozen. Protobuf is faster for many small fields.
_MOST_FIELDS = 100
_CONTINUES = 0x80


class InferRequest(NamedTuple):
    """A request, with its raw tensors beside it.

    Attributes:
        message: all but `raw_input_contents`, where the request is large.
        raw: those, in their order.
    """

    message: ModelInferRequest
    raw: Sequence[bytes | memoryview]


def parse(data: bytes | memoryview) -> InferRequest:
    """Reads a serialised ModelInferRequest.

    Raises:
        google.protobuf.message.DecodeError: it is malformed.
    """
    if len(data) < _LARGE:
        return _parse_whole(data)
    try:
        rest, raw = _split(memoryview(data))
    except _UnusualMessageError:
        return _parse_whole(data)  # which raises if the message is malformed
    return InferRequest(ModelInferRequest.FromString(rest), raw)


class _UnusualMessageError(Exception):
    """The message has a field that clients of the protocol never send."""


def _parse_whole(data: bytes | memoryview) -> InferRequest:
    message = ModelInferRequest.FromString(data)  # type: ignore[arg-type]
    return InferRequest(message, message.raw_input_contents)


def _split(data: memoryview) -> tuple[bytes, list[memoryview]]:
    """All other fields, and the raw contents."""
    rest, raw = bytearray(), []
    position = fields = 0
    while position < len(data):
        fields += 1
        if fields > _MOST_FIELDS:
            raise _UnusualMessageError
        start = position
        tag, position = _varint(data, position)
        end = _end_of_field(data, tag, position)
        if tag == _RAW_CONTENTS:
            _, begin = _varint(data, position)
            raw.append(data[begin:end])
        else:
            rest += data[start:end]
        position = end
    return bytes(rest), raw


def _end_of_field(data: memoryview, tag: int, position: int) -> int:
    kind = tag & 7
    if kind == _VARINT:
        return _varint(data, position)[1]
    if kind in {_FIXED64, _FIXED32}:
        length = 8 if kind == _FIXED64 else 4
    elif kind == _BYTES:
        length, position = _varint(data, position)
    else:
        raise _UnusualMessageError  # a group, or nothing
    if position + length > len(data):
        raise _UnusualMessageError
    return position + length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """The number at a position, and where it ends."""
    value = 0
    for shift in range(0, _MOST_VARINT_BITS, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & ~_CONTINUES) << shift
        if not byte & _CONTINUES:
            return value, position
    raise _UnusualMessageError
