"""Reads length-prefixed messages from the body of a request, and frames responses."""

import asyncio
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import numpy as np

from leadline.server.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    MessageTooLargeError,
    UnimplementedError,
)
from leadline.server.thread_pool import ThreadPool
from leadline.server.transport.budget import Charge, Charges, MessageBudget
from leadline.server.transport.decompression import STEP, WINDOW_BITS, Decompression
from leadline.server.transport.listener import ListenerOptions
from leadline.server.transport.pass_limiter import PassLimiter

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]

# The compressed flag and the length of the message.
_PREFIX = struct.Struct(">BI")

ACCEPTED_ENCODINGS = b"identity, deflate, gzip"

_NOTHING = memoryview(b"")


def framed(message: bytes) -> bytes:
    """Adds the prefix to an uncompressed message."""
    return _PREFIX.pack(0, len(message)) + message


# The memory of a large message is allocated once this much of it has arrived, because even
# its first byte may take a huge page.
BEGINNING = 1 << 20
_HUGE_PAGE = 1 << 21

# How long a message may take to arrive: this many seconds, and more for its length.
_ARRIVAL_SECONDS = 30
_ARRIVAL_BYTES_PER_SECOND = 1 << 18


def seconds_to_arrive(length: int) -> float:
    """The seconds that a message of this many bytes may take to arrive."""
    return _ARRIVAL_SECONDS + length / _ARRIVAL_BYTES_PER_SECOND


def too_slow(length: int) -> DeadlineExceededError:
    """The error for a message of this many bytes that arrives too slowly."""
    return DeadlineExceededError(
        f"a message of {length} bytes took too long to arrive: it has "
        f"{_ARRIVAL_SECONDS} s, and 1 s more for each {_ARRIVAL_BYTES_PER_SECOND} bytes",
        reason="MESSAGE_TOO_SLOW",
    )


class MessageIntake:
    """The limits and the budget that the readers of all calls share.

    Attributes:
        limit: the largest message in bytes, compressed or not.
        pending: how many messages of a stream are processed at a time.
        budget: the memory for large messages.
        copies: lets one part of a large message, up to a mebibyte, be copied in each pass of
            the event loop. The memory for it may be new, which takes milliseconds.
    """

    def __init__(
        self,
        *,
        max_message_bytes: int,
        max_memory_bytes: int = 0,
        max_pending_per_stream: int = 1,
    ) -> None:
        """Makes an intake.

        Args:
            max_message_bytes: the largest message, compressed or not.
            max_memory_bytes: the most memory for messages that are incomplete or
                unanswered; 0 for four of the largest.
            max_pending_per_stream: how many messages of a stream are processed at a time.
        """
        self.limit = max_message_bytes
        # At least 2, because a unary method reads once more to see the end.
        self.pending = max(2, max_pending_per_stream)
        self.budget = MessageBudget(max_memory_bytes or 4 * max_message_bytes)
        self.copies = PassLimiter(1)
        # One thread: decompression takes one core at most.
        self._pool = ThreadPool("decompress", 1)
        self._turn = asyncio.Lock()

    def charges(self, connection: str) -> Charges:
        """The charges of a call's messages."""
        return Charges(self.budget, connection, self.pending)

    async def decompress(
        self, message: memoryview, encoding: bytes, charge: Charge
    ) -> bytes | memoryview:
        """Decompresses a message; its charge grows with it.

        Messages that take one step overtake larger ones. Larger messages are decompressed
        one after another, so that each holds memory for a shorter time.

        Raises:
            ResourceExhaustedError: the budget has no room for the message.
            MessageTooLargeError: the message is larger than the limit.
            InvalidArgumentError: the message cannot be decompressed.
        """
        work = Decompression(message, encoding, self.limit)
        if not await self._pool.run(work.advance):
            async with self._turn:
                is_done = False
                while not is_done:
                    charge.resize(len(message) + work.size + STEP)
                    is_done = await self._pool.run(work.advance)
            charge.resize(work.size)
        return work.result()

    def close(self) -> None:
        """Stops the decompression thread."""
        self._pool.close()


def make_intake(options: ListenerOptions) -> MessageIntake:
    """Makes the intake of a listener."""
    return MessageIntake(
        max_message_bytes=options.max_message_bytes,
        max_memory_bytes=options.max_message_memory_bytes,
        max_pending_per_stream=options.max_pending_per_stream,
    )


class MessageReader:
    """Reads the messages of a request one by one, on demand."""

    __slots__ = ("_charges", "_connection", "_encoding", "_ended", "_intake", "_receive", "_rest")

    def __init__(
        self, receive: Receive, intake: MessageIntake, connection: object, encoding: bytes
    ) -> None:
        """Makes a reader.

        Args:
            receive: ASGI's receive function.
            intake: shared with other readers.
            connection: ASGI's address of the caller; its text names the connection to charge.
            encoding: the compression of messages whose compressed flag is set.
        """
        self._receive = receive
        self._intake = intake
        self._connection = connection
        self._encoding = encoding
        self._rest = _NOTHING
        self._ended = False
        self._charges: Charges | None = None  # from the first large message on

    async def read(self) -> bytes | memoryview | None:
        """The next message; None after the last.

        Raises:
            MessageTooLargeError: the message is larger than the limit.
            UnimplementedError: the message's compression is not supported.
            InvalidArgumentError: the message is truncated, or cannot be decompressed.
            ResourceExhaustedError: the budget has no room for the message.
            DeadlineExceededError: the message arrives too slowly.
        """
        if self._charges is not None:
            self._charges.begin()
        while len(self._rest) < _PREFIX.size:
            if self._ended:
                if self._rest:
                    raise _cut_short()
                return None
            self._rest = _joined(self._rest, self._chunk(await self._receive()))
        compressed, length = _PREFIX.unpack_from(self._rest)
        if compressed > 1:
            raise InvalidArgumentError.of("request", "has a message whose flag is neither 0 nor 1")
        if length > self._intake.limit:
            raise MessageTooLargeError(f"{length}", self._intake.limit)
        message = await self._take(_PREFIX.size, _PREFIX.size + length)
        return await self._decompressed(message) if compressed else message

    async def read_single(self) -> bytes | memoryview | None:
        """The message of a request that has exactly one; None if it has none or several.

        Raises:
            ServiceError: an error of `read`.
        """
        chunk = self._chunk(await self._receive())
        # Without compression, the flag is 0, so the prefix is the length as a number of five bytes.
        length = int.from_bytes(chunk[: _PREFIX.size], "big")
        if length == len(chunk) - _PREFIX.size and length <= self._intake.limit:
            rest = b"" if self._ended else self._chunk(await self._receive())
            if self._ended and not rest:
                return memoryview(chunk)[_PREFIX.size :]
            chunk += rest
        self._rest = memoryview(chunk)
        message = await self.read()
        return message if message is not None and await self.read() is None else None

    async def _take(self, start: int, end: int) -> memoryview:
        """Returns the bytes of the body from `start` to `end`; waits until they have arrived."""
        if len(self._rest) >= end:
            taken, self._rest = self._rest[start:end], self._rest[end:]
            return taken
        length = end - start
        try:
            async with asyncio.timeout(seconds_to_arrive(length)):
                return await self._arrived(start, length)
        except TimeoutError:
            raise too_slow(length) from None

    async def _arrived(self, start: int, length: int) -> memoryview:
        """Waits for the rest of a message that has begun to arrive, and returns the message."""
        self._rest = self._rest[start:]
        beginning = np.empty(min(length, BEGINNING), np.uint8).data
        await self._fill(beginning, 0, charged_in=1)
        if length == len(beginning):
            return beginning
        whole = np.empty(length, np.uint8).data  # not zeroed, unlike a bytearray
        filled = len(beginning)
        whole[:filled] = beginning
        del beginning  # the rest may take long to arrive
        await self._fill(whole, filled, charged_in=_HUGE_PAGE)
        return whole

    async def _fill(self, taken: memoryview, filled: int, *, charged_in: int) -> None:
        """Waits until the message is complete; charges it in multiples of `charged_in` bytes."""
        charge = self._charge()
        while filled < len(taken):
            if not self._rest:
                if self._ended:
                    raise _cut_short()
                self._rest = memoryview(self._chunk(await self._receive()))
            size = min(len(self._rest), len(taken) - filled)
            if charged_in > 1:
                await self._intake.copies.turn()
            charge.resize(-(-(filled + size) // charged_in) * charged_in)
            taken[filled : filled + size] = self._rest[:size]
            filled += size
            # Even an empty view would keep the whole chunk while the next one arrives.
            self._rest = self._rest[size:] if size < len(self._rest) else _NOTHING

    def close(self) -> None:
        """Releases the messages' charges when the call has ended."""
        if self._charges is not None:
            self._charges.close()

    def _charge(self) -> Charge:
        """The charge of the message that is being read."""
        if self._charges is None:
            self._charges = self._intake.charges(str(self._connection))
        return self._charges.last

    def _chunk(self, event: Event) -> bytes:
        """Returns the bytes of an event, and records whether more follow."""
        if event["type"] == "http.disconnect":
            raise asyncio.CancelledError("the caller is gone")
        self._ended = not event.get("more_body")
        chunk: bytes = event.get("body", b"")
        return chunk

    async def _decompressed(self, message: memoryview) -> bytes | memoryview:
        if self._encoding not in WINDOW_BITS:
            raise UnimplementedError(
                f"messages compressed by {self._encoding.decode('latin-1')!r} are not supported: "
                f"use one of {ACCEPTED_ENCODINGS.decode()}"
            )
        return await self._intake.decompress(message, self._encoding, self._charge())


def _joined(rest: memoryview, chunk: bytes) -> memoryview:
    return memoryview(bytes(rest) + chunk) if rest else memoryview(chunk)


def _cut_short() -> InvalidArgumentError:
    return InvalidArgumentError.of("request", "ends within a message")
