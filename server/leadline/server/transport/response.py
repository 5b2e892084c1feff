"""The response of a call: initial metadata, messages, and the status."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

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


class Response(ABC):
    """Sends one response; every method that sends waits for flow control.

    Attributes:
        code: the status code that the call will end with.
        message: the status message.
        trailing: the metadata sent with the status.
    """

    __slots__ = ("_has_started", "_sink", "code", "message", "trailing")

    def __init__(self, sink: Any) -> None:
        """Makes a response that the transport's `sink` sends."""
        self._sink = sink
        self._has_started = False
        self.code = grpc.StatusCode.OK
        self.message = ""
        self.trailing: MetadataPairs = ()

    def set_status(
        self, code: grpc.StatusCode, message: str, trailing_metadata: MetadataPairs = ()
    ) -> None:
        """Sets the status, which `end` sends."""
        self.code, self.message, self.trailing = code, message, trailing_metadata

    @abstractmethod
    async def start(self, metadata: MetadataPairs = ()) -> None:
        """Sends the headers with initial metadata, unless they were already sent."""

    @abstractmethod
    async def send(self, message: bytes) -> None:
        """Sends a serialized message."""

    @abstractmethod
    async def end(self, last: bytes | None = None) -> None:
        """Sends the last message, if there is one, and the status."""


class AsgiResponse(Response):
    """Sends through ASGI: headers, framed messages, and the status in the trailers.

    Its sink is ASGI's send function.
    """

    __slots__ = ()

    async def start(self, metadata: MetadataPairs = ()) -> None:
        await self._send(*self._start_events(metadata))

    async def send(self, message: bytes) -> None:
        body = {"type": "http.response.body", "body": framed(message), "more_body": True}
        await self._send(*self._start_events(), body)

    async def end(self, last: bytes | None = None) -> None:
        body = {"type": "http.response.body", "body": b"" if last is None else framed(last)}
        await self._send(*self._start_events(), body, self._last_event())

    async def _send(self, *events: Event) -> None:
        try:
            for event in events:
                await self._sink(event)
        except OSError as error:
            # ASGI's signal that the caller has left; the task is about to be cancelled.
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
