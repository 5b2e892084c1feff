import asyncio
import gzip
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.server.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    MessageTooLargeError,
    ResourceExhaustedError,
    ServiceError,
    UnimplementedError,
)
from leadline.server.transport import messages
from leadline.server.transport.messages import MessageIntake, MessageReader, Receive, framed

_LIMIT = 1_000
_INTAKE = MessageIntake(max_message_bytes=_LIMIT)
_CONNECTION = ("127.0.0.1", 1)


def arriving(chunks: Iterable[bytes]) -> Receive:
    """Returns ASGI's `receive` for a request whose body arrives in chunks."""
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


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6), st.lists(st.integers(0, 400), max_size=8))
async def test_messages_are_the_same_however_their_bytes_come(
    messages: list[bytes], cuts: list[int]
) -> None:
    body = b"".join(framed(message) for message in messages)
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    chunks = [body[start:end] for start, end in pairwise(places)]

    assert await all_of(reader(*chunks)) == messages


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=3), st.lists(st.integers(0, 90), max_size=3))
async def test_the_message_of_a_unary_call_is_the_only_one(
    messages: list[bytes], cuts: list[int]
) -> None:
    body = b"".join(framed(message) for message in messages)
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    chunks = [body[start:end] for start, end in pairwise(places)]

    message = await reader(*chunks).read_single()

    assert (None if message is None else [bytes(message)]) == (
        messages if len(messages) == 1 else None
    )


@given(st.binary(max_size=12), st.booleans())
async def test_a_unary_call_has_the_errors_of_a_stream(body: bytes, ends: bool) -> None:
    async def outcome(read: Callable[[MessageReader], Awaitable[object]]) -> object:
        event: dict[str, object] = {"type": "http.request", "body": body, "more_body": not ends}
        events = iter([event])

        async def receive() -> dict[str, object]:
            return next(events, {"type": "http.request"})

        try:
            return await read(reading(receive))
        except ServiceError as error:
            return type(error), str(error)

    async def single(messages: MessageReader) -> object:
        message = await messages.read_single()
        return None if message is None else bytes(message)

    async def first_of_one(messages: MessageReader) -> object:
        first = await messages.read()
        return bytes(first) if first is not None and await messages.read() is None else None

    assert await outcome(single) == await outcome(first_of_one)


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


_MEBIBYTE = 1 << 20
_OTHER = ("127.0.0.1", 2)


def message_of(size: int) -> bytes:
    return bytes(range(256)) * (size // 256) + bytes(size % 256)


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def large_intake(**options: int) -> MessageIntake:
    """Returns an intake for messages of 8 MiB, with a budget of 4 MiB for each connection."""
    return MessageIntake(
        **{"max_message_bytes": 8 * _MEBIBYTE, "max_memory_bytes": 8 * _MEBIBYTE, **options}
    )


def unfinished(
    intake: MessageIntake, size: int, *, connection: object = _CONNECTION, declared: int = 0
) -> MessageReader:
    """Returns a reader of a message of which this many bytes arrive, in chunks of 64 KiB."""
    prefix = b"\0" + (declared or size + 1).to_bytes(4, "big")
    waiting = iter(cut(prefix + bytes(size), 1 << 16))

    async def receive() -> dict[str, object]:
        for chunk in waiting:
            return {"type": "http.request", "body": chunk, "more_body": True}
        await asyncio.Event().wait()
        return {}

    return MessageReader(receive, intake, connection=connection, encoding=b"identity")


async def begun(reader: MessageReader) -> asyncio.Task[object]:
    """Starts a reading task, and waits until it has read all available data."""
    task: asyncio.Task[object] = asyncio.create_task(reader.read())
    for _ in range(1_000):
        await asyncio.sleep(0)
    return task


async def ended(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("size", [_MEBIBYTE - 1, _MEBIBYTE, _MEBIBYTE + 1, 3 * _MEBIBYTE + 7])
@pytest.mark.parametrize("chunk", [16_384, 300_000, 2 * _MEBIBYTE + 3])
async def test_large_messages_are_the_same_however_their_bytes_come(size: int, chunk: int) -> None:
    messages = [message_of(size), b"small", message_of(size)]
    chunks = cut(b"".join(framed(message) for message in messages), chunk)
    intake = large_intake(max_memory_bytes=64 * _MEBIBYTE)
    messages_read = MessageReader(
        arriving(chunks), intake, connection=_CONNECTION, encoding=b"identity"
    )

    assert await all_of(messages_read) == messages

    messages_read.close()
    assert intake.budget.held == 0


async def test_a_reader_that_waits_keeps_no_chunk_that_it_has_copied() -> None:
    chunks = cut(b"\0" + (4 * _MEBIBYTE).to_bytes(4, "big") + bytes(3 * _MEBIBYTE), 1 << 18)
    waiting = list(chunks)
    references = sys.getrefcount(chunks[-1]) - 1  # without `waiting`

    async def receive() -> dict[str, object]:
        if not waiting:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": waiting.pop(0), "more_body": True}

    reader = MessageReader(receive, large_intake(), connection=_CONNECTION, encoding=b"identity")
    task = await begun(reader)

    left = sys.getrefcount(chunks[-1])
    assert not waiting
    assert left == references
    await ended(task)


async def test_parts_of_large_messages_are_copied_one_in_each_pass_of_the_event_loop() -> None:
    intake = large_intake(max_memory_bytes=64 * _MEBIBYTE)
    tasks = [
        asyncio.create_task(unfinished(intake, 3 * _MEBIBYTE, connection=number).read())
        for number in range(10)
    ]
    charged = [10 * _MEBIBYTE]  # the first mebibyte of each message, which is not limited
    for _ in range(2_000):
        await asyncio.sleep(0)
        charged.append(intake.budget.held)

    steps = [after - before for before, after in pairwise(charged)]
    assert max(steps) <= 2 * _MEBIBYTE  # a huge page
    assert charged[-1] == 10 * 4 * _MEBIBYTE
    await ended(*tasks)


async def test_what_has_arrived_is_charged_and_not_what_is_declared() -> None:
    intake = large_intake()
    reader = unfinished(intake, 1_000, declared=7 * _MEBIBYTE)

    task = await begun(reader)

    assert intake.budget.held == 1_000
    await ended(task)
    reader.close()
    assert intake.budget.held == 0


async def test_a_connection_beyond_its_share_is_refused_and_others_are_not() -> None:
    intake = large_intake()
    readers = [unfinished(intake, 1_500_000) for _ in range(2)]
    tasks = [await begun(reader) for reader in readers]

    with pytest.raises(ResourceExhaustedError, match="this connection's messages") as caught:
        await unfinished(intake, 1_500_000).read()

    assert caught.value.reason == "MESSAGE_MEMORY_FULL"
    assert caught.value.retry_after > 0
    other = await begun(unfinished(intake, 1_500_000, connection=_OTHER))
    assert not other.done()
    await ended(*tasks, other)


async def test_messages_beyond_the_total_are_refused() -> None:
    intake = large_intake()
    tasks = [await begun(unfinished(intake, 1_500_000, connection=number)) for number in range(4)]

    with pytest.raises(ResourceExhaustedError, match="all messages"):
        await unfinished(intake, 1_500_000, connection=_OTHER).read()
    whole = MessageReader(
        arriving([framed(b"small")]), intake, connection=_OTHER, encoding=b"identity"
    )

    assert await all_of(whole) == [b"small"]
    await ended(*tasks)


async def test_a_unary_request_is_charged_until_the_call_ends() -> None:
    intake = large_intake()
    reader = MessageReader(
        arriving(cut(framed(message_of(3 * _MEBIBYTE)), 65_536)),
        intake,
        connection=_CONNECTION,
        encoding=b"identity",
    )

    assert await reader.read()
    assert await reader.read() is None
    assert intake.budget.held == 4 * _MEBIBYTE  # in pages of 2 MiB

    reader.close()
    assert intake.budget.held == 0


async def test_a_message_of_a_stream_is_charged_until_it_is_answered() -> None:
    intake = large_intake(max_pending_per_stream=3)
    bodies = [framed(message_of(500_000)) for _ in range(9)]
    reader = MessageReader(
        arriving(cut(b"".join(bodies), 65_536)),
        intake,
        connection=_CONNECTION,
        encoding=b"identity",
    )
    held = []
    while await reader.read():
        held.append(intake.budget.held)

    assert held == [500_000, 1_000_000] + [1_500_000] * 7


async def test_a_message_that_arrives_too_slowly_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(messages, "_ARRIVAL_SECONDS", 0.05)

    with pytest.raises(DeadlineExceededError, match="took too long to arrive") as caught:
        await unfinished(large_intake(), 1_000).read()

    assert caught.value.reason == "MESSAGE_TOO_SLOW"


@pytest.mark.parametrize(
    ("encoding", "compress"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)]
)
@pytest.mark.parametrize("size", [1 << 18, (1 << 18) + 1, 3 * _MEBIBYTE])
async def test_messages_that_take_many_steps_are_decompressed(
    encoding: bytes, compress: Callable[[bytes], bytes], size: int
) -> None:
    # Half of it is incompressible.
    message = np.random.default_rng(size).bytes(size // 2) + bytes(size - size // 2)
    intake = large_intake(max_memory_bytes=64 * _MEBIBYTE)
    reader = MessageReader(
        arriving([compressed(message, compress)]), intake, connection=_CONNECTION, encoding=encoding
    )

    assert await all_of(reader) == [message]


async def test_many_bombs_stay_within_the_budget_and_small_messages_pass_them() -> None:
    intake = large_intake()
    bomb = compressed(bytes(8 * _MEBIBYTE), gzip.compress)
    order: list[str] = []

    async def read(name: str, body: bytes, connection: int) -> None:
        reader = MessageReader(arriving([body]), intake, connection=connection, encoding=b"gzip")
        try:
            assert await reader.read()
        finally:
            order.append(name)
            reader.close()

    bombs = [asyncio.create_task(read("bomb", bomb, number)) for number in range(4)]
    await asyncio.sleep(0)
    await read("small", compressed(b"small", gzip.compress), 9)
    ends = await asyncio.gather(*bombs, return_exceptions=True)

    assert order[0] == "small"
    # Half of the budget is smaller than one message.
    assert {type(end) for end in ends} == {ResourceExhaustedError}
    assert intake.budget.held == 0
