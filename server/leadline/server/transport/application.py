"""Serves gRPC calls as an ASGI application."""

import functools
import re
from collections.abc import Coroutine
from typing import Any

from leadline.server.transport.call import Call
from leadline.server.transport.calls import Calls
from leadline.server.transport.deadlines import DeadlineTimers
from leadline.server.transport.headers import (
    Fields,
    Metadata,
    metadata_of,
    seconds_of_timeout,
    size_of_headers,
)
from leadline.server.transport.messages import Event, MessageIntake, MessageReader, Receive
from leadline.server.transport.response import AsgiResponse, Send

_MEDIA_TYPE = re.compile(rb"application/grpc([+;].*)?", re.DOTALL)

SERVER = "leadline.server"
"""The key of a scope under which a listener stores the number of the server."""

_UNSUPPORTED_MEDIA_TYPE = 415
_METHOD_NOT_ALLOWED = 405
_BAD_REQUEST = 400


class GrpcApplication:
    """An ASGI application that answers each request as a call."""

    def __init__(self, calls: Calls, intake: MessageIntake) -> None:
        """Makes an application.

        Args:
            calls: answers the calls.
            intake: shared by the readers of messages.
        """
        self._calls = calls
        self._intake = intake
        self._timers = DeadlineTimers()

    def __call__(self, scope: Event, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Answers an HTTP request; a function, to save a coroutine for every call."""
        try:
            seconds, encoding = _timeout_and_encoding(scope)
        except _RefusedError as refusal:
            return _refuse(send, refusal)
        messages = MessageReader(receive, self._intake, scope.get("client"), encoding)
        call = AsgiCall(scope, messages, AsgiResponse(send), seconds, self._timers)
        return self._calls.answer(call, size_of_headers(scope["headers"]))


class AsgiCall(Call):
    """A call whose request is the scope of an HTTP request."""

    __slots__ = ()

    @property
    def path(self) -> str:
        # Not "path", in which percent-encoding is decoded. gRPC does not decode it, and a
        # proxy that authorizes calls by path must see the same path as this server.
        raw: bytes = self._request["raw_path"]
        query = self._request.get("query_string")
        return (raw + b"?" + query if query else raw).decode("latin-1")

    @property
    def peer(self) -> str:
        return _peer(self._request.get("client"))

    @property
    def connection(self) -> str:
        return str(self._request.get("client"))

    @property
    def authorization(self) -> list[bytes]:
        return [value for name, value in self._request["headers"] if name == b"authorization"]

    @property
    def server(self) -> int:
        """The number of the server that has the call's connection."""
        number: int = self._request[SERVER]
        return number

    @property
    def certificate(self) -> str | None:
        tls = self._request.get("extensions", {}).get("tls")
        return tls["client_cert_chain"][0] if tls and tls["client_cert_chain"] else None

    def header_bytes(self) -> int:
        return size_of_headers(self._request["headers"])

    def metadata(self) -> Metadata:
        return metadata_of(self._request["headers"])


@functools.lru_cache(maxsize=1_024)
def _peer(client: tuple[str, int] | None) -> str:
    if client is None:
        return "unknown"
    host, port = client
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


class _RefusedError(Exception):
    """A request is not gRPC; has the HTTP status and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def _timeout_and_encoding(scope: Event) -> tuple[float | None, bytes]:
    """The call's timeout in seconds, and the encoding of its messages.

    Raises:
        _RefusedError: the request is not gRPC, or one of gRPC's own fields is malformed.
    """
    if scope["method"] != "POST":
        raise _RefusedError(_METHOD_NOT_ALLOWED, "this port speaks gRPC, whose method is POST")
    headers = scope["headers"]
    fields = dict(headers)
    media_type = fields.get(b"content-type", b"")
    if media_type != b"application/grpc" and not _MEDIA_TYPE.fullmatch(media_type):
        raise _RefusedError(
            _UNSUPPORTED_MEDIA_TYPE, "this port speaks gRPC: send content-type: application/grpc"
        )
    if b"te" not in fields:
        raise _RefusedError(
            _BAD_REQUEST, "the status of a call is in its trailers: send te: trailers"
        )
    timeout = fields.get(b"grpc-timeout")
    seconds = None if timeout is None else _seconds(timeout, fields, headers)
    return seconds, fields.get(b"grpc-encoding", b"identity")


def _seconds(timeout: bytes, fields: dict[bytes, bytes], headers: Fields) -> float:
    if len(fields) < len(headers) and sum(name == b"grpc-timeout" for name, _ in headers) > 1:
        raise _RefusedError(_BAD_REQUEST, "grpc-timeout is repeated")
    try:
        return seconds_of_timeout(timeout)
    except ValueError as error:
        raise _RefusedError(_BAD_REQUEST, str(error)) from error


async def _refuse(send: Send, refusal: _RefusedError) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{refusal}\n".encode()})
