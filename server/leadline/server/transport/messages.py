"""Reads length-prefixed messages from the body of a request, and frames responses."""

import asyncio
import struct
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import numpy as np

from leadline.server.errors import InvalidArgumentError, MessageTooLargeError, UnimplementedError
from leadline.server.thread_pool import ThreadPool

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]

# The compressed flag and the length of the message.
_PREFIX = struct.Struct(">BI")

# The zlib "window bits" that read each encoding.
_WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}

ACCEPTED_ENCODINGS = b"identity, deflate, gzip"


def framed(message: bytes) -> bytes:
    """A message with its prefix, uncompressed."""
    return _PREFIX.pack(0, len(message)) + message


class MessageReader:
    """Reads the messages of a request one by one, and no further than asked."""

    __slots__ = ("_decompression_pool", "_encoding", "_ended", "_limit", "_receive", "_rest")

    def __init__(
        self, receive: Receive, *, encoding: bytes, limit: int, decompression_pool: ThreadPool
    ) -> None:
        """Makes a reader.

        Args:
            receive: ASGI's receive function.
            encoding: the compression of messages whose compressed flag is set.
            limit: the largest message in bytes, compressed or not.
            decompression_pool: threads that decompress messages.
        """
        self._receive = receive
        self._encoding = encoding
        self._limit = limit
        self._decompression_pool = decompression_pool
        self._rest = memoryview(b"")
        self._ended = False

    async def read(self) -> bytes | memoryview | None:
        """The next message; None after the last.

        Raises:
            MessageTooLargeError: the message is larger than the limit.
            UnimplementedError: its compression is not supported.
            InvalidArgumentError: it is truncated, or cannot be decompressed.
        """
        while len(self._rest) < _PREFIX.size:
            if self._ended:
                if self._rest:
                    raise _cut_short()
                return None
            self._rest = _joined(self._rest, await self._next_chunk())
        compressed, length = _PREFIX.unpack_from(self._rest)
        if compressed > 1:
            raise InvalidArgumentError.of("request", "has a message whose flag is neither 0 nor 1")
        if length > self._limit:
            raise MessageTooLargeError(f"{length}", self._limit)
        message = await self._take(_PREFIX.size, _PREFIX.size + length)
        return await self._decompressed(message) if compressed else message

    async def _take(self, start: int, end: int) -> memoryview:
        """The bytes of the body from `start` to `end`; waits for those still to arrive."""
        if len(self._rest) >= end:
            taken, self._rest = self._rest[start:end], self._rest[end:]
            return taken
        taken = np.empty(end - start, np.uint8).data  # unlike a bytearray, not zeroed
        filled = len(self._rest) - start
        taken[:filled] = self._rest[start:]
        self._rest = memoryview(b"")
        while filled < len(taken):
            if self._ended:
                raise _cut_short()
            chunk = await self._next_chunk()
            left = len(taken) - filled
            if len(chunk) > left:
                self._rest = memoryview(chunk)[left:]
                chunk = chunk[:left]
            taken[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
        return taken

    async def _next_chunk(self) -> bytes:
        event = await self._receive()
        if event["type"] == "http.disconnect":
            raise asyncio.CancelledError("the caller is gone")
        self._ended = not event.get("more_body")
        chunk: bytes = event.get("body", b"")
        return chunk

    async def _decompressed(self, message: memoryview) -> bytes:
        window_bits = _WINDOW_BITS.get(self._encoding)
        if window_bits is None:
            raise UnimplementedError(
                f"messages compressed by {self._encoding.decode('latin-1')!r} are not supported: "
                f"use one of {ACCEPTED_ENCODINGS.decode()}"
            )
        # zlib releases the GIL.
        return await self._decompression_pool.run(_decompress, message, window_bits, self._limit)


def _decompress(message: memoryview, window_bits: int, limit: int) -> bytes:
    decompressor = zlib.decompressobj(window_bits)
    try:
        decompressed = decompressor.decompress(message, limit + 1)
    except zlib.error as error:
        raise InvalidArgumentError.of("request", "cannot be decompressed") from error
    if len(decompressed) > limit:
        raise MessageTooLargeError("more, once it is decompressed,", limit)
    if not decompressor.eof:
        raise InvalidArgumentError.of("request", "is compressed, but its end is missing")
    return decompressed


def _joined(rest: memoryview, chunk: bytes) -> memoryview:
    return memoryview(bytes(rest) + chunk) if rest else memoryview(chunk)


def _cut_short() -> InvalidArgumentError:
    return InvalidArgumentError.of("request", "ends within a message")
