"""Unfinished messages are bounded, over both transports."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio

from leadline.server.api.errors import to_status
from leadline.server.errors import ServiceError
from leadline.server.transport import arrivals, messages
from leadline.server.transport.call import Call
from leadline.server.transport.calls import Calls
from leadline.server.transport.listener import METADATA_BYTES, ListenerOptions
from leadline.server.transport.transports import make_listener
from support import http2_frames as http2
from support.bare_http2 import Answer, BareConnection, Connection, Fields

_MEBIBYTE = 1 << 20
_OPTIONS = ListenerOptions(
    max_message_bytes=8 * _MEBIBYTE, max_message_memory_bytes=24 * _MEBIBYTE, grace_seconds=0
)
_FIELDS: Fields = [(b"te", b"trailers"), (b"content-type", b"application/grpc")]
_EXHAUSTED = b"%d" % grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
_TOO_LATE = b"%d" % grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


class Measure:
    """Answers each message with its length."""

    is_unary = False

    async def answer(self, call: Call) -> None:
        try:
            while (message := await call.messages.read()) is not None:
                await call.response.send(b"%d" % len(message))
        except ServiceError as error:
            call.response.set_status(to_status(error)[0], str(error))


@pytest.fixture
async def port(transport: str) -> AsyncIterator[int]:
    listener = make_listener(transport, Calls({"/t.T/Measure": Measure()}), _OPTIONS)
    yield await listener.start("127.0.0.1", 0)
    await listener.stop()


async def begin(connection: Connection, size: int, fields: Fields | None = None) -> int:
    """Sends this many bytes of a message of 7 MiB."""
    stream = await connection.begin("/t.T/Measure", [*_FIELDS, *(fields or [])])
    await asyncio.sleep(0)  # so that the client acknowledges the server's settings
    if size:
        await connection.send(stream, b"\0" + (7 * _MEBIBYTE).to_bytes(4, "big") + bytes(size))
    return stream


async def answers(connection: Connection, streams: list[int], seconds: float = 5) -> list[Answer]:
    """Returns the answers that arrive in time; the first wait is the longest."""
    waiting = [asyncio.create_task(connection.answer(stream)) for stream in streams]
    done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return [task.result() for task in done]


async def measured(channel: Any, size: int, **options: Any) -> int:
    return int(
        await channel.unary_stream("/t.T/Measure")(bytes(size), timeout=10, **options).read()
    )


async def test_a_connection_beyond_its_share_is_refused_and_others_are_not(port: int) -> None:
    async with Connection(port) as connection:
        streams = [await begin(connection, 6 * _MEBIBYTE) for _ in range(4)]

        ended = await answers(connection, streams)

        assert {answer.trailers[b"grpc-status"] for answer in ended} == {_EXHAUSTED}
        assert b"messages" in ended[0].trailers[b"grpc-message"]
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert await measured(channel, 7 * _MEBIBYTE) == 7 * _MEBIBYTE


@pytest.mark.parametrize("transport", ["grpcio"], indirect=True)
async def test_calls_without_a_message_are_charged_their_headers(port: int) -> None:
    large = [(b"x-%d" % number, b"v" * 1_000) for number in range(14)]
    async with Connection(port) as connection:
        streams = [await begin(connection, 0, large) for _ in range(800)]

        ended = await answers(connection, streams)

        assert {answer.trailers[b"grpc-status"] for answer in ended} == {_EXHAUSTED}


async def test_an_idle_stream_stays_beside_much_else_on_its_connection(port: int) -> None:
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        idle: Any = channel.stream_stream("/t.T/Measure")()
        await idle.write(b"x")
        assert await idle.read() == b"1"
        for number in range(30):
            compression = grpc.Compression.Gzip if number % 2 else None
            size = 3 * _MEBIBYTE + number
            assert await measured(channel, size, compression=compression) == size
            await asyncio.sleep(0.02)

        await idle.write(b"xx")
        assert await idle.read() == b"2"


async def test_a_message_that_arrives_too_slowly_ends_its_call(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (arrivals, messages):
        monkeypatch.setattr(module, "seconds_to_arrive", lambda _length: 0.3)
    async with Connection(port) as connection:
        stream = await begin(connection, 3 * _MEBIBYTE)

        (answer,) = await answers(connection, [stream])

        assert answer.trailers[b"grpc-status"] == _TOO_LATE
        assert b"too long to arrive" in answer.trailers[b"grpc-message"]


@pytest.mark.parametrize("transport", ["grpcio"], indirect=True)
async def test_a_client_that_ignores_the_limit_of_metadata_is_hung_up_on(port: int) -> None:
    block = b"\x40\x01x\x7e" + b"v" * 126 + b"\xbe" * (METADATA_BYTES // 128)
    async with BareConnection(port) as connection:  # it acknowledges no settings
        connection.send(http2.headers(1, "/t.T/Measure", ends=False))
        connection.send(http2.continuation(1, block, ends=True))
        await connection.flush()

        await connection.wait_closed(3)

        assert connection.is_closed


async def test_a_message_that_is_too_large_once_decompressed_is_refused(port: int) -> None:
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for encoding in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            with pytest.raises(aio.AioRpcError, match="larger than max") as caught:
                await measured(channel, 9 * _MEBIBYTE, compression=encoding)

            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("transport", ["grpcio"], indirect=True)
async def test_a_connection_that_sends_much_before_a_call_is_hung_up_on(port: int) -> None:
    block = http2.field_block([(b"x", b"v" * 120)] * 100)
    async with BareConnection(port) as connection:
        connection.send(http2.headers(1, "/t.T/Measure", ends=False))
        for _ in range(2 * _MEBIBYTE // len(block)):
            connection.send(http2.continuation(1, block))

        await connection.wait_closed(3)

        assert connection.is_closed


@pytest.mark.parametrize("transport", ["grpcio"], indirect=True)
async def test_failed_calls_are_freed_without_a_collection_of_garbage(port: int) -> None:
    def contexts() -> int:
        return sum(type(each).__name__ == "_ServicerContext" for each in gc.get_objects())

    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        gc.collect()
        before = contexts()
        gc.disable()
        try:
            for _ in range(20):
                other: Any = channel.unary_unary("/t.T/Other")
                with pytest.raises(aio.AioRpcError, match="there is no method"):
                    await other(b"", timeout=10)

            assert contexts() - before <= 1
        finally:
            gc.enable()


async def test_a_message_that_only_begins_like_compressed_data_is_not_decompressed(
    port: int,
) -> None:
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for message in (b"\x78\x01", b"\x78\x01" + bytes(100)):
            measure: Any = channel.unary_stream("/t.T/Measure")

            assert int(await measure(message, timeout=10).read()) == len(message)
