"""gRPC calls over bare HTTP/2, for requests that gRPC's own clients never send."""

import asyncio
import contextlib
import struct
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events

from support.http2_frames import PREFACE, count_frames, settings

Fields = list[tuple[bytes, bytes]]

_READ_BYTES = 1 << 20
_PREFIX = struct.Struct(">BI")


@dataclass
class Answer:
    """The response on a stream."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[bytes, bytes] = field(default_factory=dict)
    reset: int | None = None
    """The error code, if the server has reset the stream."""

    @property
    def status(self) -> str:
        """The gRPC status as a number, or a description of what came instead."""
        if self.reset is not None and not self.trailers:
            return f"reset {self.reset}"
        return self.trailers.get(b"grpc-status", b"none").decode()


def framed(message: bytes, *, compressed: bool = False) -> bytes:
    """Returns a message with gRPC's prefix."""
    return _PREFIX.pack(compressed, len(message)) + message


class Connection:
    """A connection that respects the server's flow control, for any number of concurrent calls."""

    def __init__(self, port: int, *, reads: bool = True) -> None:
        """Prepares a connection; entering the context opens it.

        Args:
            port: the port of a server on this machine.
            reads: whether it extends its windows for the server's data.
        """
        self._port = port
        self._reads = reads
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding=None)
        )
        self._answers: dict[int, tuple[Answer, asyncio.Event]] = {}
        self._has_window = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._h2.initiate_connection()
        await self._flush()
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.transport.abort()

    async def call(
        self, path: str | bytes, fields: Fields, body: bytes, *, method: bytes = b"POST"
    ) -> Answer:
        """Sends a request, and returns the answer."""
        stream = await self.begin(path, fields, method=method)
        await self.send(stream, body, ends=True)
        return await self.answer(stream)

    async def begin(self, path: str | bytes, fields: Fields, *, method: bytes = b"POST") -> int:
        """Sends the headers of a request; returns the stream."""
        stream = self._h2.get_next_available_stream_id()
        self._answers[stream] = (Answer(), asyncio.Event())
        self._h2.send_headers(stream, [*_pseudo(method, path), *fields])
        await self._flush()
        return stream

    async def send(self, stream: int, data: bytes, *, ends: bool = False) -> None:
        """Sends a part of a body when the windows allow it.

        Raises:
            ConnectionError: the server has closed the connection.
        """
        rest = memoryview(data)
        answered = self._answers[stream][1]
        while rest and not answered.is_set():
            size = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if size > 0:
                self._h2.send_data(stream, bytes(rest[:size]))
                rest = rest[size:]
                await self._flush()
            else:
                self._has_window.clear()
                await self._wait_for(self._has_window)
        if ends and not answered.is_set():
            self._h2.end_stream(stream)
            await self._flush()

    async def answer(self, stream: int) -> Answer:
        """Waits for the complete answer on a stream.

        Raises:
            ConnectionError: the server has closed the connection without an answer.
        """
        answer, whole = self._answers[stream]
        if not whole.is_set():
            await self._wait_for(whole)
        return answer

    async def _wait_for(self, event: asyncio.Event) -> None:
        waiting = asyncio.create_task(event.wait())
        try:
            await asyncio.wait([waiting, self._reading], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not event.is_set():
            raise ConnectionError(
                "the connection was closed without an answer"
            ) from self._reading.exception()

    async def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())
        await self._writer.drain()

    async def _read(self) -> None:
        while data := await self._reader.read(_READ_BYTES):
            for event in self._h2.receive_data(data):
                self._note(event)
            await self._flush()

    def _note(self, event: h2.events.Event) -> None:
        stream = getattr(event, "stream_id", None)
        answer, whole = self._answers.get(stream or 0, (Answer(), asyncio.Event()))
        match event:
            case h2.events.ResponseReceived(headers=headers):
                answer.headers = dict(headers or ())
                if b"grpc-status" in answer.headers:  # trailers-only response
                    answer.trailers = answer.headers
            case h2.events.TrailersReceived(headers=headers):
                answer.trailers = dict(headers or ())
            case h2.events.DataReceived(data=part, flow_controlled_length=size):
                answer.body += part or b""
                if self._reads and size:
                    self._h2.acknowledge_received_data(size, stream or 0)
            case h2.events.StreamReset(error_code=code):
                answer.reset = int(code or 0)
                whole.set()
            case h2.events.StreamEnded():
                whole.set()
        self._has_window.set()


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
    """Sends a request on a new connection, and returns the answer."""
    given = [] if content_type is None else [(b"content-type", content_type)]
    given += [(b"te", b"trailers")] if takes_trailers else []
    async with asyncio.timeout(10), Connection(port) as connection:
        return await connection.call(path, [*given, *fields], body, method=method)


class BareConnection:
    """A connection for handmade frames, which counts the server's frames.

    Attributes:
        is_closed: whether the server has closed it.
    """

    def __init__(self, port: int, *, reads: bool = True, greeting: bytes | None = None) -> None:
        """Prepares a connection; entering the context opens it.

        Args:
            port: the port of a server on this machine.
            reads: whether it reads the server's data.
            greeting: the first bytes to send; None: the preface without settings.
        """
        self._port = port
        self._reads = reads
        self._greeting = PREFACE + settings() if greeting is None else greeting
        self._received = bytearray()
        self.is_closed = False

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._reading = asyncio.create_task(self._read())
        self.send(self._greeting)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.transport.abort()

    @property
    def frames(self) -> Counter[int]:
        """The number of the server's frames by type."""
        return count_frames(bytes(self._received))

    def send(self, frames: bytes) -> None:
        """Sends frames, unless the server has closed the connection."""
        if not self.is_closed:
            self._writer.write(frames)

    async def flush(self) -> None:
        """Waits until the server has room for more.

        Raises:
            ConnectionError: the server has closed the connection.
        """
        await self._writer.drain()
        await asyncio.sleep(0)  # otherwise a flood would block all other tasks
        if self.is_closed:
            raise ConnectionResetError("the server has closed the connection")

    async def wait_closed(self, seconds: float) -> None:
        """Waits until the server closes the connection, up to a time limit."""
        await asyncio.wait([self._reading], timeout=seconds)

    async def _read(self) -> None:
        if not self._reads:
            await asyncio.Event().wait()
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
