"""Decompresses messages step by step, so that many share one thread."""

import zlib

import numpy as np

from leadline.server.errors import InvalidArgumentError, MessageTooLargeError

# The zlib "window bits" that read each encoding.
WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}

# Bytes that a step reads or writes, in one or two milliseconds.
STEP = 1 << 18

# The last bytes of gzip data state its length, which zlib checks. Deflate expands a
# byte to at most this many: if the length is larger, the end is missing.
_LENGTH_BYTES = 4
_MOST_RATIO = 1_032


class Decompression:
    """A message being decompressed.

    Attributes:
        size: the number of bytes decompressed so far.
    """

    def __init__(self, message: memoryview, encoding: bytes, limit: int) -> None:
        """Starts to decompress; `advance` does the work.

        Raises:
            MessageTooLargeError: the stated length exceeds the limit.
        """
        self._input = message
        self._position = 0
        self._limit = limit
        self._decompressor = zlib.decompressobj(WINDOW_BITS[encoding])
        self._most = limit
        stated = int.from_bytes(message[-_LENGTH_BYTES:], "little")
        if encoding == b"gzip" and stated <= _MOST_RATIO * len(message):
            if stated > limit:
                raise MessageTooLargeError(f"{stated}", limit)
            self._most = stated
        self._output: bytes | memoryview = b""
        self.size = 0

    def advance(self) -> bool:
        """Decompresses one more step; returns whether it was the last. Blocks.

        Raises:
            MessageTooLargeError: the message is larger than the limit.
            InvalidArgumentError: the message is damaged or truncated.
        """
        written = read = 0
        while not self._decompressor.eof and written < STEP and read < STEP:
            piece = self._decompressor.unconsumed_tail or self._next_slice()
            try:
                output = self._decompressor.decompress(piece, STEP - written)
            except zlib.error as error:
                raise InvalidArgumentError.of("request", "cannot be decompressed") from error
            if not piece and not output:
                raise InvalidArgumentError.of("request", "is compressed, but its end is missing")
            self._append(output)
            written += len(output)
            read += len(piece)
        return self._decompressor.eof

    def result(self) -> bytes | memoryview:
        """The message, after the last step."""
        return self._output[: self.size]

    def _next_slice(self) -> memoryview:
        piece = self._input[self._position : self._position + STEP]
        self._position += len(piece)
        return piece

    def _append(self, output: bytes) -> None:
        end = self.size + len(output)
        if end > self._limit:
            raise MessageTooLargeError("more, once it is decompressed,", self._limit)
        if end > self._most:
            raise InvalidArgumentError.of("request", "cannot be decompressed: its length is wrong")
        if not self.size:
            self._output = output  # for most messages, the whole message
        else:
            if isinstance(self._output, bytes):
                whole = np.empty(self._most, np.uint8).data  # not zeroed, unlike a bytearray
                whole[: self.size] = self._output
                self._output = whole
            self._output[self.size : end] = output
        self.size = end
