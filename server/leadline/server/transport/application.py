"""Calls of gRPC as an ASGI application."""

import asyncio
from collections.abc import Callable
from typing import Protocol

import grpc
import structlog
from grpc import aio

from leadline.server.errors import shorten
from leadline.server.transport.call import Call
from leadline.server.transport.messages import Event, MessageIntake, Receive
from leadline.server.transport.response import Send

_LOG = structlog.get_logger(__name__)

_SHUTTING_DOWN = (grpc.StatusCode.UNAVAILABLE, "the server shuts down")

_UNSUPPORTED_MEDIA_TYPE = 415
_METHOD_NOT_ALLOWED = 405
_BAD_REQUEST = 400


class Method(Protocol):
    """A method of a service."""

    async def answer(self, call: Call) -> bytes | None:
        """Answers a call; returns the response of a unary method, None for a stream.

        Raises:
            AbortError: the status is set.
        """


class GrpcApplication:
    """An ASGI application that calls the method of each request's path."""

    def __init__(self, find: Callable[[str], Method | None], intake: MessageIntake) -> None:
        """Makes an application.

        Args:
            find: returns the method of a path; None if there is none.
            intake: what the readers of messages share; closed by `stop`.
        """
        self._find = find
        self._intake = intake
        self._calls: dict[asyncio.Task[None], Call] = {}
        self._is_stopping = False

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Answers an HTTP request."""
        refusal = _refusal(scope)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - ASGI servers run applications in tasks
        try:
            call = self._call(scope, receive, send, task)
        except ValueError as error:
            await _refuse(send, _BAD_REQUEST, str(error))
            return
        self._calls[task] = call
        try:
            await self._answer(call, task)
        finally:
            del self._calls[task]
            call.close()

    @property
    def calls_in_flight(self) -> int:
        """How many calls have not ended."""
        return len(self._calls)

    async def stop(self, grace_seconds: float) -> None:
        """Refuses new calls, and cancels those that are in flight after the grace period.

        They end with UNAVAILABLE, unless their status is being written already.
        """
        self._is_stopping = True
        if self._calls:
            await asyncio.wait(self._calls, timeout=grace_seconds)
        for call in self._calls.values():
            call.cancel(_SHUTTING_DOWN)
        if self._calls:
            await asyncio.wait(self._calls)
        self._intake.close()

    def _call(self, scope: Event, receive: Receive, send: Send, task: "asyncio.Task[None]") -> Call:
        return Call(scope, receive, send, task=task, intake=self._intake)

    async def _answer(self, call: Call, task: "asyncio.Task[None]") -> None:
        last = None
        try:
            last = await self._answered(call)
        except aio.AbortError:
            pass  # the status is set
        except asyncio.CancelledError:
            code, message = call.end_of_cancelled
            if code is grpc.StatusCode.CANCELLED:
                raise  # nobody receives a status
            call.response.set_status(code, message)
            task.uncancel()
        except Exception as error:  # noqa: BLE001 - the boundary: methods translate their errors
            _LOG.error("a method failed", path=call.path, exc_info=error)
            call.response.set_status(grpc.StatusCode.INTERNAL, "an internal error of the server")
        await call.response.end(last)

    async def _answered(self, call: Call) -> bytes | None:
        if self._is_stopping:
            call.response.set_status(*_SHUTTING_DOWN)
            return None
        method = self._find(call.path)
        if method is None:
            call.response.set_status(
                grpc.StatusCode.UNIMPLEMENTED, f"there is no method {shorten(call.path)}"
            )
            return None
        return await method.answer(call)


def _refusal(scope: Event) -> tuple[int, str] | None:
    """The HTTP status and the reason if a request is not gRPC; None if it is."""
    if scope["method"] != "POST":
        return _METHOD_NOT_ALLOWED, "this port speaks gRPC, whose method is POST"
    is_grpc = takes_trailers = False
    for name, value in scope["headers"]:
        if name == b"content-type":
            is_grpc = value == b"application/grpc" or value.startswith(
                (b"application/grpc+", b"application/grpc;")
            )
        elif name == b"te":
            takes_trailers = True
    if not is_grpc:
        return _UNSUPPORTED_MEDIA_TYPE, "this port speaks gRPC: send content-type: application/grpc"
    if not takes_trailers:
        return _BAD_REQUEST, "the status of a call is in its trailers: send te: trailers"
    return None


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{reason}\n".encode()})
