"""Calls between the processes of one server, over the socket that two of them share.

Each call has a connection of its own: its caller makes a pair of sockets, and passes one of
them over the shared socket. So a call's backpressure and its end are those of a socket, and
calls have nothing in common that one of them could fill. A connection carries frames: the
head and the one message in one direction, the messages and the status in the other. The caller
closes it to cancel the call.
"""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import grpc

from leadline.server.errors import ResourceExhaustedError, UnavailableError
from leadline.server.identity import UNAUTHENTICATED, Identity, Role
from leadline.server.transport.call import CALLER_GONE, Call
from leadline.server.transport.calls import Calls
from leadline.server.transport.deadlines import DeadlineTimers
from leadline.server.transport.headers import Fields, Metadata, fields_of, metadata_of
from leadline.server.transport.response import MetadataPairs, Response

# The kind of a frame, and the bytes that follow.
_PREFIX = struct.Struct(">cI")
_HEAD, _MESSAGE, _INITIAL, _STATUS = b"H", b"M", b"I", b"S"

_CODES = {code.value[0]: code for code in grpc.StatusCode}

_RETRY_SECONDS = 0.1

# How often a call is passed again while the other process accepts none, and when.
_PASSING_TRIES, _PASSING_SECONDS = 1_000, 0.005

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Reply:
    """The status of a call to another process, once its messages are read."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    trailing: Metadata = field(default_factory=tuple)


class Link:
    """One end of the socket that two processes share; either calls the other.

    Attributes:
        closed: set when the other process is gone.
    """

    def __init__(self, shared: socket.socket, *, max_calls: int) -> None:
        """Makes a link, which accepts no calls before `open`.

        Args:
            shared: a connected socket that keeps the bounds of packets (SOCK_SEQPACKET).
            max_calls: the most calls in flight to the other process: each takes a descriptor
                in both.
        """
        self.closed = asyncio.Event()
        self._shared = shared
        self._max_calls = max_calls
        self._in_flight = 0
        self._timers = DeadlineTimers()
        self._calls: Calls | None = None
        self._answering: set[asyncio.Task[None]] = set()

    def open(self, calls: Calls) -> None:
        """Starts to answer the calls of the other process with `calls`."""
        self._calls = calls
        self._shared.setblocking(False)
        asyncio.get_running_loop().add_reader(self._shared.fileno(), self._accept)

    def close(self) -> None:
        """Ends the link, and the calls of the other process."""
        self.closed.set()
        if self._shared.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._shared.fileno())
            self._shared.close()
        for task in self._answering:
            task.cancel()

    async def ask(self, path: str, request: bytes = b"") -> bytes:
        """The response of a unary method in the other process, for this process itself.

        Raises:
            UnavailableError: the other process is gone, or its answer is an error.
        """
        reply, response = Reply(), b""
        async with self.call(path, request, reply=reply, identity=UNAUTHENTICATED) as messages:
            async for message in messages:
                response = message
        if reply.code is not grpc.StatusCode.OK:
            raise UnavailableError(f"{path} failed in another process: {reply.message}")
        return response

    @asynccontextmanager
    async def call(
        self,
        path: str,
        request: bytes,
        *,
        reply: Reply,
        identity: Identity,
        peer: str = "",
        seconds: float | None = None,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Calls a method of the other process; it is cancelled at the end of the context.

        Args:
            path: the method's.
            request: its one message.
            reply: receives the status after the last message.
            identity: the caller for whom it is called, whom this process has authenticated.
            peer: that caller's address. No method of a link reads the caller's metadata, so none
                is sent.
            seconds: until the deadline; None without one.

        Yields:
            The messages of the response.

        Raises:
            UnavailableError: the other process is gone.
            ResourceExhaustedError: too many calls to it are in flight.
        """
        if self._in_flight >= self._max_calls:
            raise ResourceExhaustedError(
                f"{self._in_flight} calls wait for another process of the server, which is the "
                "limit: try again soon",
                reason="TOO_MANY_CALLS",
                retry_after=_RETRY_SECONDS,
            )
        self._in_flight += 1
        try:
            reader, writer = await self._connect()
            try:
                caller = [identity.name, identity.role]
                head = {"path": path, "peer": peer, "seconds": seconds, "identity": caller}
                writer.write(_framed(_HEAD, json.dumps(head).encode()))
                writer.write(_framed(_MESSAGE, request))
                yield _responses(reader, reply)
            finally:
                writer.close()
        finally:
            self._in_flight -= 1

    async def _connect(self) -> _Streams:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                await self._pass(theirs.fileno())
            except BaseException:
                ours.close()
                raise
        return await asyncio.open_unix_connection(sock=ours)

    async def _pass(self, descriptor: int) -> None:
        for _ in range(_PASSING_TRIES):
            try:
                socket.send_fds(self._shared, [b"call"], [descriptor])
            except BlockingIOError:  # it has yet to accept hundreds of calls
                await asyncio.sleep(_PASSING_SECONDS)
            except OSError as error:
                raise _gone() from error
            else:
                return
        raise _gone()

    def _accept(self) -> None:
        """Accepts the connections that the other process has passed."""
        while True:
            try:
                packet, descriptors, *_ = socket.recv_fds(self._shared, 16, 1)
            except BlockingIOError:
                return
            except OSError:
                packet, descriptors = b"", []
            if not packet:
                asyncio.get_running_loop().remove_reader(self._shared.fileno())
                self.closed.set()
                return
            for descriptor in descriptors:
                task = asyncio.create_task(self._answer(socket.socket(fileno=descriptor)))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    async def _answer(self, connection: socket.socket) -> None:
        """Answers the call of a connection."""
        assert self._calls is not None  # noqa: S101 - the link is open
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):  # the caller is gone
                _, head = await _read_frame(reader)
                # The whole request, even if the method reads none of it: if this process closed
                # the connection earlier, the caller's write would fail, and lose the response.
                _, message = await _read_frame(reader)
                messages = _LinkedMessages(message)
                known = json.loads(head)
                response = LinkedResponse(writer)
                call = LinkedCall(
                    known, messages, response, seconds=known["seconds"], timers=self._timers
                )
                name, role = known["identity"]
                call.identity = Identity(name, Role(role))
                watching = asyncio.create_task(_cancel_if_closed(reader, call))
                try:
                    await self._calls.answer(call)
                finally:
                    watching.cancel()
        finally:
            writer.close()


class LinkedCall(Call):
    """A call of another process, made for a caller of that process."""

    __slots__ = ()

    @property
    def path(self) -> str:
        path: str = self._request["path"]
        return path

    @property
    def peer(self) -> str:
        peer: str = self._request["peer"]
        return peer

    @property
    def connection(self) -> str:
        return self.peer

    def header_bytes(self) -> int:
        """Nothing: the other process has counted them."""
        return 0

    def metadata(self) -> Metadata:
        """Nothing: see `Link.call`."""
        return ()


class _LinkedMessages:
    """The one message of a call of another process, which has checked and charged it."""

    def __init__(self, message: bytes) -> None:
        self._message: bytes | None = message

    async def read(self) -> bytes | None:
        message, self._message = self._message, None
        return message

    async def read_single(self) -> bytes | None:
        return await self.read()

    def close(self) -> None:
        """Does nothing: the other process has charged the message."""


class LinkedResponse(Response):
    """Sends the response of a call to the other process; its sink is a stream's writer."""

    __slots__ = ()

    async def start(self, metadata: MetadataPairs = ()) -> None:
        if not self._has_started:
            self._has_started = True
            await self._send(_INITIAL, json.dumps(_as_text(fields_of(metadata))).encode())

    async def send(self, message: bytes) -> None:
        self._has_started = True
        await self._send(_MESSAGE, message)

    async def end(self, last: bytes | None = None) -> None:
        if last is not None:
            await self._send(_MESSAGE, last)
        trailing = _as_text(fields_of(self.trailing))
        status = {"code": self.code.value[0], "message": self.message, "trailing": trailing}
        await self._send(_STATUS, json.dumps(status).encode())

    async def _send(self, kind: bytes, payload: bytes) -> None:
        self._sink.write(_framed(kind, payload))
        try:
            await self._sink.drain()
        except ConnectionError as error:
            raise asyncio.CancelledError("the caller is gone") from error


async def _cancel_if_closed(reader: asyncio.StreamReader, call: LinkedCall) -> None:
    """Cancels a call when its caller closes the connection."""
    with suppress(ConnectionError):
        await reader.read()
    call.cancel(CALLER_GONE)


async def _responses(reader: asyncio.StreamReader, reply: Reply) -> AsyncIterator[bytes]:
    while True:
        try:
            kind, payload = await _read_frame(reader)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise _gone() from error
        if kind == _MESSAGE:
            yield payload
        elif kind == _STATUS:
            status = json.loads(payload)
            reply.code = _CODES[status["code"]]
            reply.message = status["message"]
            reply.trailing = metadata_of(_as_fields(status["trailing"]))
            return


async def _read_frame(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind, length = _PREFIX.unpack(await reader.readexactly(_PREFIX.size))
    return kind, await reader.readexactly(length)


def _framed(kind: bytes, payload: bytes = b"") -> bytes:
    return _PREFIX.pack(kind, len(payload)) + payload


def _as_text(fields: Fields) -> list[tuple[str, str]]:
    """Converts header fields for JSON."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


def _as_fields(pairs: list[list[str]]) -> Fields:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


def _gone() -> UnavailableError:
    return UnavailableError("the process of the server that was to answer has ended: try again")
