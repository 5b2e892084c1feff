"""One call: what a method learns of its caller, and how its answer goes out."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NoReturn

import grpc
from grpc import aio

from leadline.server.errors import InvalidArgumentError
from leadline.server.thread_pool import ThreadPool
from leadline.server.transport.headers import (
    OK_TRAILERS,
    Fields,
    fields_of,
    metadata_of,
    seconds_of_timeout,
    trailers_of,
)
from leadline.server.transport.messages import (
    ACCEPTED_ENCODINGS,
    Event,
    MessageReader,
    Receive,
    framed,
)

Send = Callable[[Event], Awaitable[None]]
MetadataPairs = Iterable[tuple[str, str | bytes]]

_CALLER_GONE = (grpc.StatusCode.CANCELLED, "the caller is gone")
_LATE = (grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")

_CONTENT_TYPE = (b"content-type", b"application/grpc")
_BEGIN: Event = {
    "type": "http.response.start",
    "status": 200,
    "headers": [_CONTENT_TYPE],
    "trailers": True,
}
_END_OK: Event = {"type": "http.response.trailers", "headers": OK_TRAILERS}


class Call(aio.ServicerContext[Any, Any]):
    """A call in work: the context that gRPC's servicers are given.

    Its task is cancelled when the caller is gone, its deadline has passed or the
    server ends; `end_of_cancelled` then tells which.
    """

    def __init__(
        self,
        scope: Event,
        receive: Receive,
        send: Send,
        *,
        task: "asyncio.Task[Any]",
        limit: int,
        decompression_pool: ThreadPool,
    ) -> None:
        """Makes one of an HTTP request.

        Args:
            scope: ASGI's, of the request.
            receive: ASGI's.
            send: ASGI's.
            task: what answers it, cancelled when the deadline has passed.
            limit: the bytes that a message may have.
            decompression_pool: where messages are decompressed.

        Raises:
            ValueError: a field of gRPC's own is malformed.
        """
        self._scope = scope
        self._send_event = send
        self._task = task
        self._has_begun = False
        self._is_done = False
        self._code = grpc.StatusCode.OK
        self._message = ""
        self._trailing: MetadataPairs = ()
        self._callbacks: list[Callable[[Any], None]] = []
        self._serialize: Callable[[Any], bytes] | None = None
        self.end_of_cancelled = _CALLER_GONE
        """The code and the message of a call whose task is cancelled."""
        seconds, encoding = _timeout_and_encoding(scope["headers"])
        self.messages = MessageReader(
            receive, encoding=encoding, limit=limit, decompression_pool=decompression_pool
        )
        """The request's messages."""
        # Last: a timer keeps what it is about until it is cancelled.
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._timer = None if seconds is None else _call_later(seconds, self._let_lapse)

    @property
    def path(self) -> str:
        """The method's path as it came, "/package.Service/Method"."""
        # Not "path", in which percent signs are resolved: gRPC gives them no meaning, and
        # who lets calls through by their paths must see what is seen here.
        raw: bytes = self._scope["raw_path"]
        return raw.decode("latin-1")

    # What servicers ask

    def peer(self) -> str:
        """Where the caller is, as gRPC writes it: "ipv4:127.0.0.1:12345"."""
        client = self._scope.get("client")
        if client is None:
            return "unknown"
        host, port = client
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def time_remaining(self) -> Any:
        """Seconds until the deadline; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def invocation_metadata(self) -> Any:
        """What the caller sent beside the messages: pairs of a key and a text, or bytes.

        Raises:
            InvalidArgumentError: a binary value is malformed.
        """
        try:
            return metadata_of(self._scope["headers"])
        except ValueError as error:
            raise InvalidArgumentError.of("metadata", str(error)) from error

    def cancelled(self) -> bool:
        """Whether the call has been given up."""
        return self._task.cancelling() > 0

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._is_done

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Has a function called with the call when it ends."""
        self._callbacks.append(callback)

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Nothing: callers do not say who they are."""
        return {}

    def peer_identities(self) -> Iterable[bytes] | None:
        """Nothing: callers do not say who they are."""
        return None

    def peer_identity_key(self) -> str | None:
        """Nothing: callers do not say who they are."""
        return None

    # The status, which goes out at the end

    def set_status(
        self, code: grpc.StatusCode, message: str, trailing_metadata: MetadataPairs = ()
    ) -> None:
        """Says what the call will end with."""
        self._code, self._message, self._trailing = code, message, trailing_metadata

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Any = (),
    ) -> NoReturn:
        """Ends the call with a status.

        Raises:
            AbortError: always.
        """
        self.set_status(code, details, trailing_metadata)
        raise aio.AbortError(f"the call ends with {code.name}")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """Ends the call with a status.

        Raises:
            AbortError: always.
        """
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def set_code(self, code: grpc.StatusCode) -> None:
        """Says which code the call will end with."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Says which message the call will end with."""
        self._message = details

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Says what comes beside the status."""
        self._trailing = trailing_metadata

    def code(self) -> grpc.StatusCode:
        """The code so far."""
        return self._code

    def details(self) -> str:
        """The message so far."""
        return self._message

    def trailing_metadata(self) -> Any:
        """What comes beside the status, so far."""
        return self._trailing

    def set_compression(self, compression: grpc.Compression) -> None:
        """Does nothing: answers are sent as they are."""

    def disable_next_message_compression(self) -> None:
        """Does nothing: answers are sent as they are."""

    # What goes out

    def serialize_with(self, serialize: Callable[[Any], bytes] | None) -> None:
        """Says how `write` makes bytes of messages."""
        self._serialize = serialize

    async def read(self) -> NoReturn:
        """Is not for methods of this server, which are handed their requests.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("the requests of a stream are an argument of its method")

    async def write(self, message: Any) -> None:
        """Sends a message, once the caller has room for it."""
        await self.send(self._serialize(message) if self._serialize else message)

    async def send(self, message: bytes) -> None:
        """Sends a message's bytes, once the caller has room for them."""
        await self._begin()
        await self._send({"type": "http.response.body", "body": framed(message), "more_body": True})

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Sends metadata ahead of the messages."""
        await self._begin(fields_of(initial_metadata))

    async def end(self, last: bytes | None = None) -> None:
        """Sends the status, behind a last message where there is one."""
        await self._begin()
        body = b"" if last is None else framed(last)
        await self._send({"type": "http.response.body", "body": body})
        await self._send(self._last_event())

    def give_up(self, end: tuple[grpc.StatusCode, str]) -> None:
        """Cancels the call's task, so that it ends with a code and a message."""
        self.end_of_cancelled = end
        self._task.cancel()

    def close(self) -> None:
        """Lets go of what the call holds, however it has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._is_done = True
        for callback in self._callbacks:
            callback(self)

    async def _send(self, event: Event) -> None:
        try:
            await self._send_event(event)
        except OSError as error:
            # So ASGI says that the caller is gone; the task is about to be cancelled for it.
            raise asyncio.CancelledError("the caller is gone") from error

    async def _begin(self, fields: Fields | None = None) -> None:
        if not self._has_begun:
            self._has_begun = True
            await self._send({**_BEGIN, "headers": [_CONTENT_TYPE, *fields]} if fields else _BEGIN)

    def _last_event(self) -> Event:
        if self._code is grpc.StatusCode.OK and not self._trailing:
            return _END_OK
        trailers = trailers_of(self._code, self._message, self._trailing)
        if self._code is grpc.StatusCode.UNIMPLEMENTED:
            trailers.append((b"grpc-accept-encoding", ACCEPTED_ENCODINGS))
        return {"type": "http.response.trailers", "headers": trailers}

    def _let_lapse(self) -> None:
        self.give_up(_LATE)


def _timeout_and_encoding(fields: Fields) -> tuple[float | None, bytes]:
    """The seconds that a call may take, and what its messages are compressed by.

    Raises:
        ValueError: the timeout is malformed, or there twice.
    """
    seconds, encoding = None, b"identity"
    for name, value in fields:
        if name == b"grpc-timeout":
            if seconds is not None:
                raise ValueError("grpc-timeout is there twice")
            seconds = seconds_of_timeout(value)
        elif name == b"grpc-encoding":
            encoding = value
    return seconds, encoding


def _call_later(seconds: float, function: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(seconds, function)
