"""The HTTP/2 response of a call: headers, framed messages, and the status in the trailers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import grpc

from leadline.server.transport.headers import OK_TRAILERS, fields_of, trailers_of
from leadline.server.transport.messages import ACCEPTED_ENCODINGS, Event, framed

Send = Callable[[Event], Awaitable[None]]
MetadataPairs = Iterable[tuple[str, str | bytes]]

_CONTENT_TYPE = (b"content-type", b"application/grpc")
_START: Event = {
    "type": "http.response.start",
    "status": 200,
    "headers": [_CONTENT_TYPE],
    "trailers": True,
}
_END_OK: Event = {"type": "http.response.trailers", "headers": OK_TRAILERS}


class Response:
    """Sends one response through ASGI; every method that sends waits for flow control.

    Attributes:
        code: the status code that the call will end with.
        message: the status message.
        trailing: the metadata sent with the status.
    """

    __slots__ = ("_has_started", "_send_event", "code", "message", "trailing")

    def __init__(self, send: Send) -> None:
        self._send_event = send
        self._has_started = False
        self.set_status(grpc.StatusCode.OK, "")

    def set_status(
        self, code: grpc.StatusCode, message: str, trailing_metadata: MetadataPairs = ()
    ) -> None:
        """Sets the status, which goes out at the end."""
        self.code, self.message, self.trailing = code, message, trailing_metadata

    async def start(self, metadata: MetadataPairs = ()) -> None:
        """Sends the headers with initial metadata, unless they were sent before."""
        await self._send(*self._start_events(metadata))

    async def send(self, message: bytes) -> None:
        """Sends a serialized message."""
        body = {"type": "http.response.body", "body": framed(message), "more_body": True}
        await self._send(*self._start_events(), body)

    async def end(self, last: bytes | None = None) -> None:
        """Sends the last message, if there is one, and the status."""
        body = {"type": "http.response.body", "body": b"" if last is None else framed(last)}
        await self._send(*self._start_events(), body, self._last_event())

    async def _send(self, *events: Event) -> None:
        try:
            for event in events:
                await self._send_event(event)
        except OSError as error:
            # ASGI's signal that the caller is gone; the task is about to be cancelled for it.
            raise asyncio.CancelledError("the caller is gone") from error

    def _start_events(self, metadata: MetadataPairs = ()) -> tuple[Event, ...]:
        if self._has_started:
            return ()
        self._has_started = True
        if not metadata:
            return (_START,)
        return ({**_START, "headers": [_CONTENT_TYPE, *fields_of(metadata)]},)

    def _last_event(self) -> Event:
        if self.code is grpc.StatusCode.OK and not self.trailing:
            return _END_OK
        trailers = trailers_of(self.code, self.message, self.trailing)
        if self.code is grpc.StatusCode.UNIMPLEMENTED:
            trailers.append((b"grpc-accept-encoding", ACCEPTED_ENCODINGS))
        return {"type": "http.response.trailers", "headers": trailers}
