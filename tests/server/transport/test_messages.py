import asyncio
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.server.errors import (
    InvalidArgumentError,
    MessageTooLargeError,
    UnimplementedError,
)
from leadline.server.transport.messages import MessageIntake, MessageReader, Receive, framed

_LIMIT = 1_000
_INTAKE = MessageIntake(max_message_bytes=_LIMIT)
_CONNECTION = ("127.0.0.1", 1)


def arriving(chunks: Iterable[bytes]) -> Receive:
    """ASGI's `receive` of a request whose body comes in chunks."""
    events = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    waiting: Iterator[dict[str, object]] = iter([*events, {"type": "http.request"}])

    async def receive() -> dict[str, object]:
        return next(waiting)

    return receive


def reading(receive: Receive, encoding: bytes = b"identity") -> MessageReader:
    return MessageReader(receive, _INTAKE, connection=_CONNECTION, encoding=encoding)


def reader(*chunks: bytes, encoding: bytes = b"identity") -> MessageReader:
    return reading(arriving(chunks), encoding)


async def all_of(messages: MessageReader) -> list[bytes]:
    found = []
    while (message := await messages.read()) is not None:
        found.append(bytes(message))
    return found


def compressed(message: bytes, compress: Callable[[bytes], bytes]) -> bytes:
    packed = compress(message)
    return b"\1" + len(packed).to_bytes(4, "big") + packed


@given(st.lists(st.binary(max_size=60), max_size=6), st.lists(st.integers(0, 400), max_size=8))
async def test_messages_are_the_same_however_their_bytes_come(
    messages: list[bytes], cuts: list[int]
) -> None:
    body = b"".join(framed(message) for message in messages)
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    chunks = [body[start:end] for start, end in pairwise(places)]

    assert await all_of(reader(*chunks)) == messages


async def test_a_body_may_end_with_the_chunk_that_ends_its_last_message() -> None:
    events = iter([{"type": "http.request", "body": framed(b"x"), "more_body": False}])

    async def receive() -> dict[str, object]:
        return next(events)

    assert await all_of(reading(receive)) == [b"x"]


async def test_a_caller_who_goes_in_the_middle_is_no_end_of_the_body() -> None:
    events: Iterator[dict[str, object]] = iter(
        [
            {"type": "http.request", "body": framed(b"four")[:7], "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> dict[str, object]:
        return next(events)

    with pytest.raises(asyncio.CancelledError, match="gone"):
        await reading(receive).read()


@pytest.mark.parametrize("length", range(1, 8))
async def test_a_body_that_ends_within_a_message_is_refused(length: int) -> None:
    with pytest.raises(InvalidArgumentError, match="ends within a message"):
        await all_of(reader(framed(b"four")[:length]))


async def test_a_message_that_says_it_is_too_large_is_refused_before_it_comes() -> None:
    prefix = framed(b"x" * (_LIMIT + 1))[:5]

    with pytest.raises(MessageTooLargeError, match=r"1001 vs\. 1000 bytes"):
        await reader(prefix).read()


@pytest.mark.parametrize(
    ("encoding", "compress"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)]
)
async def test_compressed_messages_are_read(
    encoding: bytes, compress: Callable[[bytes], bytes]
) -> None:
    body = compressed(b"x" * _LIMIT, compress) + framed(b"plain")

    assert await all_of(reader(body, encoding=encoding)) == [b"x" * _LIMIT, b"plain"]


async def test_a_message_that_grows_beyond_the_limit_is_refused_without_being_unpacked() -> None:
    bomb = compressed(bytes(900_000), gzip.compress)
    assert len(bomb) < _LIMIT

    with pytest.raises(MessageTooLargeError, match=r"900000 vs\. 1000 bytes"):
        await reader(bomb, encoding=b"gzip").read()


async def test_a_message_that_does_not_state_its_length_is_refused_at_the_limit() -> None:
    bomb = compressed(bytes(900_000), zlib.compress)

    with pytest.raises(MessageTooLargeError, match="decompressed"):
        await reader(bomb, encoding=b"deflate").read()


@pytest.mark.parametrize("length", [0, 98, 100, 2**32 - 1])
async def test_a_message_that_states_a_wrong_length_is_refused(length: int) -> None:
    packed = gzip.compress(b"x" * 99)[:-4] + length.to_bytes(4, "little")
    body = b"\1" + len(packed).to_bytes(4, "big") + packed

    with pytest.raises(InvalidArgumentError, match="decompressed"):
        await reader(body, encoding=b"gzip").read()


@pytest.mark.parametrize(
    "packed", [b"no gzip at all", gzip.compress(b"x" * 99)[:-9]], ids=["wrong", "cut short"]
)
async def test_what_cannot_be_decompressed_is_refused(packed: bytes) -> None:
    body = b"\1" + len(packed).to_bytes(4, "big") + packed

    with pytest.raises(InvalidArgumentError, match=r"decompressed|end is missing"):
        await reader(body, encoding=b"gzip").read()


async def test_an_unknown_encoding_is_named_with_those_that_are_known() -> None:
    with pytest.raises(UnimplementedError, match=r"'br' are not supported.*gzip"):
        await reader(compressed(b"x", zlib.compress), encoding=b"br").read()
