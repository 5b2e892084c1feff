"""An attacker's calls, with encoded requests."""

import zlib
from collections.abc import Iterator

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from hostile.attack import Scene
from support.bare_http2 import Answer, Connection, Fields, framed
from support.hostile_messages import field

_GRPC: Fields = [(b"te", b"trailers"), (b"content-type", b"application/grpc")]
_NAMES = {str(code.value[0]): code.name for code in grpc.StatusCode}
_STRINGS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


async def send(
    scene: Scene,
    connection: Connection,
    path: str,
    message: bytes,
    *,
    is_compressed: bool = False,
    seconds: int = 10,
) -> str:
    """Makes a call with a deadline; tallies and returns its status."""
    status, _ = await ask(
        scene, connection, path, message, is_compressed=is_compressed, seconds=seconds
    )
    return status


async def ask(
    scene: Scene,
    connection: Connection,
    path: str,
    message: bytes,
    *,
    is_compressed: bool = False,
    seconds: int = 10,
) -> tuple[str, Answer]:
    """Makes a call with a deadline; tallies its status, and returns the whole answer."""
    encoding = [(b"grpc-encoding", b"gzip")] if is_compressed else []
    fields = [*_GRPC, *encoding, (b"grpc-timeout", b"%dS" % seconds)]
    answer = await connection.call(path, fields, framed(message, compressed=is_compressed))
    status = _NAMES.get(answer.status, answer.status)
    scene.tally[status] += 1
    return status, answer


async def begin(connection: Connection, path: str) -> int:
    """Begins a call without a deadline; returns its stream."""
    return await connection.begin(path, _GRPC)


def compressed(data: bytes) -> bytes:
    """Returns data compressed by gzip at the highest level."""
    compressor = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def requests_of(message: Descriptor, string: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields requests with a string in one field each, with the field's name."""
    yield from _requests_of(message, string, ())


def _requests_of(
    message: Descriptor, string: bytes, outer: tuple[FieldDescriptor, ...]
) -> Iterator[tuple[str, bytes]]:
    for inner in message.fields:
        if inner.type in _STRINGS:
            request = field(inner.number, string)
            for around in reversed(outer):
                request = field(around.number, request)
            yield inner.name, request
        elif inner.message_type is not None and inner not in outer and len(outer) < 6:
            yield from _requests_of(inner.message_type, string, (*outer, inner))
