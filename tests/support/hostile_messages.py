"""Requests of every method with as many elements as their size allows.

Each has a method and a place in its request: a repeated field, a map, unknown fields, or nested
messages. This module finds the places in the descriptors, so a new field needs no change here.
"""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.struct_pb2 import ListValue, Value
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from leadline.oip.v2 import open_inference_pb2
from leadline.v1 import inference_service_pb2, inspection_service_pb2, training_service_pb2

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_START_GROUP, _END_GROUP = 3, 4

_KINDS = {
    FieldDescriptor.TYPE_DOUBLE: _FIXED64,
    FieldDescriptor.TYPE_FIXED64: _FIXED64,
    FieldDescriptor.TYPE_SFIXED64: _FIXED64,
    FieldDescriptor.TYPE_FLOAT: _FIXED32,
    FieldDescriptor.TYPE_FIXED32: _FIXED32,
    FieldDescriptor.TYPE_SFIXED32: _FIXED32,
    FieldDescriptor.TYPE_STRING: _BYTES,
    FieldDescriptor.TYPE_BYTES: _BYTES,
    FieldDescriptor.TYPE_MESSAGE: _BYTES,
}
_EMPTY = {_VARINT: b"\0", _FIXED64: bytes(8), _FIXED32: bytes(4), _BYTES: b"\0"}

MODULES = (
    training_service_pb2,
    inference_service_pb2,
    inspection_service_pb2,
    open_inference_pb2,
    health_pb2,
    reflection_pb2,
)

# Lists within lists; protobuf's parser goes 100 messages deep.
_NESTED = 45


@dataclass(frozen=True)
class HostileMessage:
    """A request for a method, of any size.

    Attributes:
        path: the method, "/package.Service/Method".
        is_stream: whether the method takes a stream of requests.
        place: the repeated element, such as "axes.values" or "axes: unknown fields".
        field: the name of the repeated field; empty if it is not a field of the message.
        outer: the numbers of the enclosing fields, the outermost first.
        element: the serialized repeated element.
        tag: if not None, all elements are one packed field with this number.
    """

    path: str
    is_stream: bool
    place: str
    field: str
    outer: tuple[int, ...]
    element: bytes
    tag: int | None = None

    def body(self, size: int) -> bytes:
        """Returns the serialized request of about `size` bytes."""
        body = self.element * (size // len(self.element))
        if self.tag is not None:
            body = field(self.tag, body)
        for number in reversed(self.outer):
            body = field(number, body)
        return body

    def framed(self, size: int, *, compress: bool) -> bytes:
        """Returns the request as a gRPC message of about `size` bytes before compression."""
        body = gzip.compress(self.body(size), 9) if compress else self.body(size)
        return bytes([compress]) + len(body).to_bytes(4, "big") + body

    def __str__(self) -> str:
        return f"{self.path.rpartition('/')[2]}: {self.place}"


def methods() -> dict[str, MethodDescriptor]:
    """Returns every method of a server by its path."""
    return {
        # The package of the Open Inference Protocol has another name on the wire.
        f"/{service.full_name.replace('leadline.oip.v2.', 'inference.')}/{method.name}": method
        for module in MODULES
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def hostile_messages() -> Iterator[HostileMessage]:
    """Yields a request for each place of each method that can hold unlimited elements."""
    for path, method in methods().items():
        for place in _places(method.input_type, ()):
            yield HostileMessage(path, bool(method.client_streaming), *place)


def repeated_fields(message: Descriptor) -> Iterator[tuple[FieldDescriptor, ...]]:
    """Yields the repeated fields of a message and its nested messages, with their paths."""
    return _repeated(message, (), frozenset())


def _repeated(
    message: Descriptor, way: tuple[FieldDescriptor, ...], seen: frozenset[str]
) -> Iterator[tuple[FieldDescriptor, ...]]:
    if message.full_name in seen:  # Struct and ListValue are recursive
        return
    for inner in message.fields:
        if inner.is_repeated:
            yield (*way, inner)
        if inner.message_type is not None:
            yield from _repeated(inner.message_type, (*way, inner), seen | {message.full_name})


_Place = tuple[str, str, tuple[int, ...], bytes, int | None]


def _places(message: Descriptor, outer: tuple[int, ...]) -> Iterator[_Place]:
    unknown = _unknown(message)
    yield "unknown fields", "", outer, _tag(unknown, _VARINT) + b"\0", None
    yield "unknown bytes", "", outer, _tag(unknown, _BYTES) + b"\0", None
    group = _tag(unknown, _START_GROUP) + _tag(unknown, _END_GROUP)
    yield "unknown groups", "", outer, group, None
    for way in repeated_fields(message):
        yield from _places_of_field(way)
    yield from _singular(message)


def _places_of_field(way: tuple[FieldDescriptor, ...]) -> Iterator[_Place]:
    last, name = way[-1], ".".join(step.name for step in way)
    outer = tuple(step.number for step in way[:-1])
    kind = _KINDS.get(last.type, _VARINT)
    element = _tag(last.number, kind) + _EMPTY[kind]
    yield name, last.name, outer, element, None
    if kind != _BYTES:
        yield f"{name}: packed", last.name, outer, _EMPTY[kind], last.number
    if last.message_type is not None:
        unknown = _tag(_unknown(last.message_type), _VARINT) + b"\0"
        yield f"{name}: unknown fields", "", (*outer, last.number), unknown, None
    if last.message_type is not None and last.message_type.full_name == "google.protobuf.Value":
        yield f"{name}: lists in lists", "", outer, field(last.number, nested_lists(_NESTED)), None


def _singular(message: Descriptor) -> Iterator[_Place]:
    for inner in message.fields:
        if not inner.is_repeated:
            kind = _KINDS.get(inner.type, _VARINT)
            element = _tag(inner.number, kind) + _EMPTY[kind]
            yield f"{inner.name}: again and again", "", (), element, None
            return


def _unknown(message: Descriptor) -> int:
    """Returns the lowest unused field number of a message, which has the shortest tag."""
    return next(number for number in range(1, 1_000) if number not in message.fields_by_number)


def nested_lists(depth: int) -> bytes:
    """Returns a serialized google.protobuf.Value of nested lists."""
    list_value = Value.DESCRIPTOR.fields_by_name["list_value"].number
    values = ListValue.DESCRIPTOR.fields_by_name["values"].number
    value = b""
    for _ in range(depth):
        value = field(list_value, field(values, value))
    return value


def field(number: int, content: bytes) -> bytes:
    """Returns a serialized field of bytes, a string or a message."""
    return _tag(number, _BYTES) + _varint(len(content)) + content


def _tag(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
