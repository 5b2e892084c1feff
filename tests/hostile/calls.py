"""Requests of every RPC, as an attacker encodes them and sends them."""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from hostile.attack import Scene
from leadline.oip.v2 import open_inference_pb2
from leadline.v1 import inference_service_pb2, inspection_service_pb2, training_service_pb2
from support.bare_http2 import Connection, Fields, framed

_GRPC: Fields = [(b"te", b"trailers"), (b"content-type", b"application/grpc")]
_NAMES = {str(code.value[0]): code.name for code in grpc.StatusCode}

# A length-delimited field, a varint, and the start of a group.
DELIMITED, VARINT, GROUP = 2, 0, 3


@dataclass(frozen=True)
class Method:
    """An RPC."""

    path: str
    request: Descriptor


@cache
def methods() -> tuple[Method, ...]:
    """Every RPC of every service on the port."""
    oip = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    services = {
        "inference.GRPCInferenceService": oip,
        "grpc.health.v1.Health": health_pb2.DESCRIPTOR.services_by_name["Health"],
        "grpc.reflection.v1alpha.ServerReflection": (
            reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
        ),
    }
    for file in (inference_service_pb2, inspection_service_pb2, training_service_pb2):
        services |= {
            service.full_name: service for service in file.DESCRIPTOR.services_by_name.values()
        }
    return tuple(
        Method(f"/{name}/{method.name}", method.input_type)
        for name, service in services.items()
        for method in service.methods
    )


@dataclass(frozen=True)
class FieldPath:
    """A field of a request, and the fields that lead to it."""

    outer: tuple[FieldDescriptor, ...]
    field: FieldDescriptor

    def request(self, content: bytes) -> bytes:
        """A request with these encoded fields in the innermost message."""
        for field in reversed(self.outer):
            content = delimited(field.number, content)
        return content


def fields_of(
    message: Descriptor, outer: tuple[FieldDescriptor, ...] = ()
) -> Iterator[FieldPath]:
    """All fields of a message and of the messages in it; of recursive ones, one level."""
    for field in message.fields:
        yield FieldPath(outer, field)
        inner = field.message_type
        if inner is not None and all(inner is not above.message_type for above in outer):
            yield from fields_of(inner, (*outer, field))


def tag(number: int, kind: int) -> bytes:
    """What begins a field on the wire."""
    return varint(number << 3 | kind)


def varint(value: int) -> bytes:
    """A number in base 128."""
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def delimited(number: int, content: bytes) -> bytes:
    """A field of bytes, a string or a message."""
    return tag(number, DELIMITED) + varint(len(content)) + content


def compressed(data: bytes) -> bytes:
    """Data by gzip, as small as it gets."""
    compressor = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


async def send(
    scene: Scene,
    connection: Connection,
    path: str,
    message: bytes,
    *,
    is_compressed: bool = False,
    seconds: int = 10,
    fields: Iterable[tuple[bytes, bytes]] = (),
) -> str:
    """Makes a call with a deadline; tallies and returns its status."""
    encoding = [(b"grpc-encoding", b"gzip")] if is_compressed else []
    all_fields = [*_GRPC, *encoding, (b"grpc-timeout", b"%dS" % seconds), *fields]
    answer = await connection.call(path, all_fields, framed(message, compressed=is_compressed))
    status = _NAMES.get(answer.status, answer.status)
    scene.tally[status] += 1
    return status


async def begin(connection: Connection, path: str) -> int:
    """Begins a call without a deadline; returns its stream."""
    return await connection.begin(path, _GRPC)
