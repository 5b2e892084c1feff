"""Messages that are small on the wire and large after parsing."""

import asyncio
from collections.abc import Callable, Iterable

from hostile.attack import Bar, Scene, attack
from hostile.calls import begin, compressed, send
from support.bare_http2 import Connection
from support.hostile_messages import (
    HostileMessage,
    field,
    hostile_messages,
    methods,
    nested_lists,
)

_MEBIBYTE = 1 << 20
_AT_ONCE = 4

# The budget of unfinished requests, and a margin.
_BUDGETED = Bar(memory_mib=256 + 128)

_START_GROUP = b"\x7b"  # of field 15

# The path of a method, and a function that builds its request, because all requests together would
# not fit into memory.
_Case = tuple[str, Callable[[], bytes]]


@attack(
    source="elements cost 20 to 100 times their size on the wire",
    is_finite=True,
    is_of_transport=True,
)
async def empty_elements(scene: Scene) -> None:
    """Sends 58 MiB of empty elements, 57 KiB by gzip, in each repeated field of each RPC.

    Python objects for 30 million elements need gigabytes, and half a minute of the event loop if it
    parses them.
    """
    places = [place for place in hostile_messages() if _is_element(place)]
    await _send_all(scene, _cases(scene, places), is_compressed=True)


@attack(
    source="elements cost 20 to 100 times their size on the wire",
    bar=_BUDGETED,
    is_finite=True,
)
async def empty_elements_uncompressed(scene: Scene) -> None:
    """Sends some of the same without compression, so that no limit on the compression ratio
    applies."""
    places = [place for place in hostile_messages() if _is_element(place)]
    await _send_all(scene, _cases(scene, places[:: scene.scaled(8, 4)]), is_compressed=False)


@attack(source="protobuf's runtimes keep fields that they do not know", is_finite=True)
async def unknown_fields(scene: Scene) -> None:
    """Sends 29 million unknown fields in each message of each RPC."""
    places = [place for place in hostile_messages() if "unknown" in place.place]
    await _send_all(scene, _cases(scene, places[:: scene.scaled(3, 1)]), is_compressed=True)


@attack(source="protobuf's packed fields", is_finite=True)
async def packed_scalars(scene: Scene) -> None:
    """Sends 58 million one-byte numbers in each repeated field of numbers."""
    places = [place for place in hostile_messages() if "packed" in place.place]
    await _send_all(scene, _cases(scene, places), is_compressed=True)


@attack(source="CVE-2025-4565, recursion in protobuf", is_finite=True, is_of_transport=True)
async def deep_nesting(scene: Scene) -> None:
    """Nests lists, structs and unknown groups a million levels deep: parsers recurse."""
    groups = _START_GROUP * scene.scaled(100_000, 1_000_000)
    cases: list[_Case] = [(path, lambda: groups) for path in methods()]
    for depth in (49, 1_000, 20_000):
        axes = field(2, field(2, nested_lists(depth)))
        cases.append(("/leadline.v1.TrainingService/TrainSweep", axes.__bytes__))
    await _send_all(scene, cases, is_compressed=False)


@attack(
    source="slow bodies (CWE-770), in messages of gRPC",
    bar=_BUDGETED,
    is_of_transport=True,
)
async def unfinished_messages(scene: Scene) -> None:
    """Sends 58 of 60 MiB on each of 32 streams, and then stalls.

    A limit on each message does not limit all of them together. The server must refuse messages
    beyond its budget, and still accept the small messages of others.
    """
    declared, sent = 60 * _MEBIBYTE, bytes(58 * _MEBIBYTE)
    prefix = b"\0" + declared.to_bytes(4, "big")

    async def hold() -> None:
        async with Connection(scene.site.port) as connection:
            stream = await begin(connection, "/leadline.v1.InferenceService/Predict")
            await connection.send(stream, prefix)
            await connection.send(stream, sent)
            scene.tally["sent"] += 1
            answer = await connection.answer(stream)
            scene.tally[f"refused: {answer.status}"] += 1
            await asyncio.sleep(1)

    await scene.begin()
    await scene.repeat(scene.scaled(8, 32), hold)


def _is_element(place: HostileMessage) -> bool:
    return not any(word in place.place for word in ("unknown", "packed", "again"))


def _cases(scene: Scene, places: Iterable[HostileMessage]) -> list[_Case]:
    size = scene.scaled(4, 58) * _MEBIBYTE
    return [(place.path, lambda place=place: place.body(size)) for place in places]  # type: ignore[misc]


async def _send_all(scene: Scene, cases: Iterable[_Case], *, is_compressed: bool) -> None:
    """Sends each case once on a separate connection, some of them concurrently."""
    rest = iter(cases)

    async def send_rest() -> None:
        for path, make in rest:
            message = compressed(make()) if is_compressed else make()
            try:
                async with Connection(scene.site.port) as connection:
                    await send(scene, connection, path, message, is_compressed=is_compressed)
            except OSError as error:  # a closed connection is also a refusal
                scene.tally[type(error).__name__] += 1

    await scene.begin()
    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(send_rest())
