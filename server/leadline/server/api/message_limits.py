"""Limits the elements of a message before it is parsed into objects.

An element costs a caller two bytes and the server up to a hundred. So the server
first scans the wire format by the message's descriptor, and stops at a limit.

The contract has the limits, as the option `max_items` of each repeated field.
A table in this module has the limits of messages of other protocols.
"""

import asyncio
from collections.abc import Generator, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from leadline.oip.v2 import open_inference_pb2
from leadline.server.api import wire
from leadline.server.api.oip.reflection import WIRE_PACKAGE
from leadline.server.errors import InvalidArgumentError
from leadline.v1 import field_options_pb2

# Fields of a request on the wire, known or not, including those of nested messages.
MAX_FIELDS = 20_000

# Fields to read before other tasks run: a few milliseconds of work.
_SLICE = 2_048

# Bytes of packed numbers to count between two checks of the limit.
_PIECE = 1 << 20

# Protobuf's own limit on nested messages.
_MAX_DEPTH = 100

# For lists of an inference request, which have no other limit. A request for one
# image has too few bytes to reach it, so it is not scanned.
_MAX_INFERENCE_ITEMS = 16_384

# The values of 1,024 images. `raw_input_contents` is faster and smaller for more.
_MAX_TYPED_CONTENTS = 1_024 * 3 * 32 * 32

_TYPED_CONTENTS = open_inference_pb2.InferTensorContents.DESCRIPTOR
_OTHERS: dict[str, int] = {
    "google.protobuf.Struct.fields": 1_000,
    "google.protobuf.ListValue.values": 1_000,
} | {
    typed.full_name: _MAX_TYPED_CONTENTS
    for typed in _TYPED_CONTENTS.fields
    if typed.type != FieldDescriptor.TYPE_BYTES
}

_KINDS = {
    FieldDescriptor.TYPE_DOUBLE: wire.FIXED64,
    FieldDescriptor.TYPE_FIXED64: wire.FIXED64,
    FieldDescriptor.TYPE_SFIXED64: wire.FIXED64,
    FieldDescriptor.TYPE_FLOAT: wire.FIXED32,
    FieldDescriptor.TYPE_FIXED32: wire.FIXED32,
    FieldDescriptor.TYPE_SFIXED32: wire.FIXED32,
    FieldDescriptor.TYPE_STRING: wire.BYTES,
    FieldDescriptor.TYPE_BYTES: wire.BYTES,
    FieldDescriptor.TYPE_MESSAGE: wire.BYTES,
}


def max_items(repeated: FieldDescriptor) -> int:
    """The most elements of a repeated field in one request.

    Raises:
        LookupError: the contract has no limit for the field.
    """
    options = repeated.GetOptions().Extensions
    if field_options_pb2.max_items in options:
        return int(options[field_options_pb2.max_items])
    if repeated.full_name in _OTHERS:
        return _OTHERS[repeated.full_name]
    if repeated.full_name.startswith(f"{open_inference_pb2.DESCRIPTOR.package}."):
        return _MAX_INFERENCE_ITEMS
    raise LookupError(f"{repeated.full_name} has no max_items")


class _Repeated(NamedTuple):
    """A repeated field in a request, with its index among all repeated fields."""

    number: int
    path: str
    limit: int
    least_bytes: int


class _Field(NamedTuple):
    """The contents of a field on the wire.

    Attributes:
        repeated: the repeated field whose elements it holds, if any.
        packed: the wire type of its packed numbers; None if it has none.
        inner: the fields of its nested message.
    """

    repeated: _Repeated | None
    packed: int | None = None
    inner: "_Fields | None" = None


# By tag, that is, number and wire type. All other fields are unknown.
_Fields = dict[int, _Field]
_UNKNOWN = _Field(None)


class MessageLimits:
    """The limits of a method's requests.

    Attributes:
        smallest_excess: no message with fewer bytes than this exceeds a limit.
    """

    def __init__(self, message: Descriptor) -> None:
        """Reads the limits of a message and its nested messages.

        Raises:
            LookupError: a repeated field has no limit.
        """
        self._repeated: list[_Repeated] = []
        self._fields = self._fields_of(message, "", {})
        sizes = [(item.limit + 1) * item.least_bytes for item in self._repeated]
        self.smallest_excess = min([MAX_FIELDS + 1, *sizes])

    async def check(self, data: wire.Data) -> None:
        """Checks a serialised message; other tasks run in between.

        Raises:
            InvalidArgumentError: the message exceeds a limit.
            google.protobuf.message.DecodeError: the message is malformed.
        """
        for _ in self._counting(data, [0] * len(self._repeated)):
            await asyncio.sleep(0)

    def count(self, data: wire.Data) -> dict[str, int]:
        """The number of elements in a serialised message, by the paths of their fields.

        Raises:
            InvalidArgumentError: the message exceeds a limit.
            google.protobuf.message.DecodeError: the message is malformed.
        """
        counts = [0] * len(self._repeated)
        for _ in self._counting(data, counts):
            pass
        return {item.path: counts[item.number] for item in self._repeated}

    def _counting(self, data: wire.Data, counts: list[int]) -> Iterator[None]:
        try:
            yield from _Scan(data, counts).message(self._fields, 0, len(data))
        except ValueError:
            raise _malformed() from None

    def _fields_of(self, message: Descriptor, path: str, around: dict[str, _Fields]) -> _Fields:
        if message.full_name in around:  # a Struct may hold Structs: they count together
            return around[message.full_name]
        fields: _Fields = {}
        for field in message.fields:
            kind = _KINDS.get(field.type, wire.VARINT)
            field_path = f"{path}{field.name}"
            repeated = self._add_repeated(field, field_path, kind) if field.is_repeated else None
            inner = field.message_type and self._fields_of(
                field.message_type, f"{field_path}.", {**around, message.full_name: fields}
            )
            fields[field.number << 3 | kind] = _Field(repeated, inner=inner)
            if repeated and kind != wire.BYTES:
                fields[field.number << 3 | wire.BYTES] = _Field(repeated, packed=kind)
        return fields

    def _add_repeated(self, field: FieldDescriptor, path: str, kind: int) -> _Repeated:
        item = _Repeated(
            len(self._repeated), path, max_items(field), 2 if kind == wire.BYTES else 1
        )
        self._repeated.append(item)
        return item


@cache
def limits_of(service: str, method: str) -> MessageLimits:
    """The limits of a method's requests; `service` is the name on the wire."""
    if service.startswith(f"{WIRE_PACKAGE}."):
        services = open_inference_pb2.DESCRIPTOR.services_by_name
        described = services[service.removeprefix(f"{WIRE_PACKAGE}.")]
    else:
        known = descriptor_pool.Default()  # type: ignore[no-untyped-call]
        # Reflection's v1 has no descriptor: its messages are those of v1alpha.
        name = service.replace("grpc.reflection.v1.", "grpc.reflection.v1alpha.")
        described = known.FindServiceByName(name)
    return MessageLimits(described.methods_by_name[method].input_type)


class _Scan:
    """Reads a serialised message, and counts the elements of its repeated fields."""

    def __init__(self, data: wire.Data, counts: list[int]) -> None:
        self._data = data
        self._counts = counts
        self._fields_read = 0

    def message(
        self, fields: _Fields, position: int, end: int, depth: int = 0, group: int | None = None
    ) -> Generator[None, None, int]:
        """Scans from a position to the end of the message, or of the group.

        Yields after each slice of fields. Returns the end's position.

        Raises:
            ValueError: the data is truncated.
        """
        if depth > _MAX_DEPTH:
            raise _malformed()
        data = self._data
        while position < end:
            self._fields_read += 1
            if self._fields_read > MAX_FIELDS:
                raise _too_many("request", self._fields_read, "fields in all", MAX_FIELDS)
            if not self._fields_read % _SLICE:
                yield
            tag, position = wire.read_varint(data, position)
            kind = tag & 7
            if kind == wire.START_GROUP:  # the contract has no groups
                position = yield from self.message({}, position, end, depth + 1, tag >> 3)
            elif kind == wire.END_GROUP and tag >> 3 == group:
                return position
            else:
                start, position = wire.content(data, position, kind)
                inner = self._counted(fields.get(tag, _UNKNOWN), start, min(position, end))
                if inner is not None:
                    yield from self.message(inner, start, min(position, end), depth + 1)
        if position > end or group is not None:
            raise _malformed()
        return position

    def _counted(self, field: _Field, start: int, end: int) -> "_Fields | None":
        """Counts a field's elements; returns the fields of its nested message."""
        repeated, packed, inner = field
        if repeated is not None:
            _add(repeated, packed, self._data[start:end], self._counts)
        return inner


def _add(repeated: _Repeated, packed: int | None, content: wire.Data, counts: list[int]) -> None:
    number, path, limit, _ = repeated
    if packed is None:
        counts[number] += 1
    elif packed in wire.SIZES:
        counts[number] += len(content) // wire.SIZES[packed]
    else:
        for start in range(0, len(content), _PIECE):
            # The last byte of a varint has its highest bit clear.
            piece = np.frombuffer(content[start : start + _PIECE], np.int8)
            counts[number] += int(np.count_nonzero(piece >= 0))
            if counts[number] > limit:
                break
    if counts[number] > limit:
        raise _too_many(path, counts[number], "elements", limit)


def _malformed() -> DecodeError:
    return DecodeError("malformed")


def _too_many(path: str, count: int, what: str, limit: int) -> InvalidArgumentError:
    return InvalidArgumentError.of(
        path, f"has at least {count:,} {what}, but a request may have {limit:,}"
    )
