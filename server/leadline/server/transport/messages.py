"""The messages in the body of a request: each behind five bytes, which tell of it."""

import asyncio
import struct
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import numpy as np

from leadline.server.errors import (
    InvalidArgumentError,
    MessageTooLargeError,
    UnimplementedError,
)
from leadline.server.thread_pool import ThreadPool

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]

# Whether it is compressed, and its length.
_PREFIX = struct.Struct(">BI")

# The zlib "window bits" that read each encoding.
_WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}

ACCEPTED_ENCODINGS = b"identity, deflate, gzip"


def framed(message: bytes) -> bytes:
    """A message as it goes into the body of a response."""
    return _PREFIX.pack(0, len(message)) + message


class MessageReader:
    """Reads the messages of a request, as they come and no further."""

    __slots__ = ("_decompression_pool", "_encoding", "_ended", "_limit", "_receive", "_rest")

    def __init__(
        self, receive: Receive, *, encoding: bytes, limit: int, decompression_pool: ThreadPool
    ) -> None:
        """Makes one.

        Args:
            receive: ASGI's, of the request.
            encoding: what compressed messages are compressed by.
            limit: the bytes that a message may have, also once it is unpacked.
            decompression_pool: where that is done.
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
            MessageTooLargeError: it is larger than the limit.
            UnimplementedError: it is compressed by something that is not known.
            InvalidArgumentError: the body ends within it, or cannot be unpacked.
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
        return await self._unpacked(message) if compressed else message

    async def _take(self, start: int, end: int) -> memoryview:
        """What the body has from `start` to `end`, which may have to come yet."""
        if len(self._rest) >= end:
            taken, self._rest = self._rest[start:end], self._rest[end:]
            return taken
        taken = np.empty(end - start, np.uint8).data  # unlike a bytearray it is not cleared
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

    async def _unpacked(self, message: memoryview) -> bytes:
        window_bits = _WINDOW_BITS.get(self._encoding)
        if window_bits is None:
            raise UnimplementedError(
                f"messages compressed by {self._encoding.decode('latin-1')!r} are not supported: "
                f"use one of {ACCEPTED_ENCODINGS.decode()}"
            )
        # zlib leaves Python's lock alone.
        return await self._decompression_pool.run(_unpack, message, window_bits, self._limit)


def _unpack(message: memoryview, window_bits: int, limit: int) -> bytes:
    unpacker = zlib.decompressobj(window_bits)
    try:
        unpacked = unpacker.decompress(message, limit + 1)
    except zlib.error as error:
        raise InvalidArgumentError.of("request", "cannot be decompressed") from error
    if len(unpacked) > limit:
        raise MessageTooLargeError("more, once it is decompressed,", limit)
    if not unpacker.eof:
        raise InvalidArgumentError.of("request", "is compressed, but its end is missing")
    return unpacked


def _joined(rest: memoryview, chunk: bytes) -> memoryview:
    return memoryview(bytes(rest) + chunk) if rest else memoryview(chunk)


def _cut_short() -> InvalidArgumentError:
    return InvalidArgumentError.of("request", "ends within a message")
