"""Calls of gRPC made by bare HTTP/2, for what gRPC's own clients would never send."""

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events

from faults import http2

Fields = list[tuple[bytes, bytes]]

_READ_BYTES = 1 << 16


@dataclass
class Answer:
    """What came back on a stream."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[bytes, bytes] = field(default_factory=dict)
    reset: int | None = None
    """The error code, where the server has reset the stream."""


async def answer_to(
    port: int,
    path: str | bytes,
    fields: Fields,
    *,
    body: bytes = b"\0\0\0\0\0",
    method: bytes = b"POST",
    content_type: bytes | None = b"application/grpc",
    takes_trailers: bool = True,
) -> Answer:
    """The answer to a request, on a connection of its own."""
    connection = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=True, header_encoding=None)
    )
    connection.initiate_connection()
    given = [] if content_type is None else [(b"content-type", content_type)]
    given += [(b"te", b"trailers")] if takes_trailers else []
    connection.send_headers(1, [*_pseudo(method, path), *given, *fields])
    connection.send_data(1, body, end_stream=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            return await _read_answer(connection, reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


class BareConnection:
    """A connection for frames made by hand: it counts those that the server sends.

    Attributes:
        is_closed: whether the server has closed it.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._received = bytearray()
        self.is_closed = False

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._reading = asyncio.create_task(self._read())
        self.send(http2.PREFACE + http2.settings())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reading.cancel()
        self._writer.transport.abort()

    @property
    def frames(self) -> Counter[int]:
        """The frames that the server has sent, by their type."""
        return http2.count_frames(bytes(self._received))

    def send(self, frames: bytes) -> None:
        """Sends frames, unless the server has closed the connection."""
        if not self.is_closed:
            self._writer.write(frames)

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(_READ_BYTES):
                self._received += data
        self.is_closed = True


def _pseudo(method: bytes, path: str | bytes) -> Fields:
    return [
        (b":method", method),
        (b":scheme", b"http"),
        (b":path", path.encode() if isinstance(path, str) else path),
        (b":authority", b"127.0.0.1"),
    ]


async def _read_answer(
    connection: h2.connection.H2Connection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> Answer:
    answer = Answer()
    while True:
        writer.write(connection.data_to_send())
        data = await reader.read(_READ_BYTES)
        if not data:
            raise ConnectionError("the server has closed the connection without an answer")
        for event in connection.receive_data(data):
            match event:
                case h2.events.ResponseReceived(headers=headers):
                    answer.headers = dict(headers or ())
                    if b"grpc-status" in answer.headers:  # an answer of trailers only
                        answer.trailers = answer.headers
                case h2.events.TrailersReceived(headers=headers):
                    answer.trailers = dict(headers or ())
                case h2.events.DataReceived(data=part):
                    answer.body += part or b""
                case h2.events.StreamReset(error_code=code):
                    answer.reset = int(code or 0)
                    return answer
                case h2.events.StreamEnded():
                    return answer
