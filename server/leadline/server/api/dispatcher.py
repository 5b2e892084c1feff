"""Finds the method of each call, runs it, turns errors into status, and counts."""

import asyncio
import inspect
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc import aio

from leadline.server.api.errors import DETAILS_KEY, to_status
from leadline.server.api.message_limits import MessageLimits, limits_of
from leadline.server.errors import InvalidArgumentError, ServiceError, UnimplementedError
from leadline.server.telemetry.calls import GrpcMetrics, MethodMetrics
from leadline.server.transport.call import Call
from leadline.server.transport.calls import Method
from leadline.server.transport.context import CallContext

_LOG = structlog.get_logger(__name__)

# grpc's classes are generic only to type checkers.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behavior = Callable[[Any, CallContext], Any]

# The label values of go-grpc-middleware, which dashboards expect.
_CODE_LABELS = {
    code: "".join(word.capitalize() for word in code.name.split("_")) for code in grpc.StatusCode
} | {grpc.StatusCode.OK: "OK", grpc.StatusCode.CANCELLED: "Canceled"}


class RpcDispatcher:
    """The server's methods by path.

    It takes the place of a `grpc.aio.Server` in the stubs' `add_..._to_server`
    functions, which register methods.

    Attributes:
        methods: the methods by their paths.
        own_methods: the same, for calls that another process has forwarded here.
    """

    def __init__(
        self,
        metrics: GrpcMetrics,
        forward: "Callable[[str, Handler], Handler | None]" = lambda _path, _handler: None,
    ) -> None:
        """Makes a dispatcher.

        Args:
            metrics: counts the calls.
            forward: what has another process answer the calls of a path instead of its
                handler, if anything.
        """
        self._metrics = metrics
        self._forward = forward
        self.methods: dict[str, Method] = {}
        self.own_methods: dict[str, Method] = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Does nothing: the stubs register the same methods below."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Registers the methods of a service."""
        for name, handler in handlers.items():
            path, limits = f"/{service}/{name}", limits_of(service, name)
            metrics = self._metrics.method(_kind(handler), service, name)
            self.methods[path] = _method(self._forward(path, handler) or handler, metrics, limits)
            # The process that has forwarded a call counts it.
            uncounted = MethodMetrics(*metrics.labels)
            self.own_methods[path] = _method(handler, uncounted, limits)


class _Method(ABC):
    """A servicer's method."""

    is_unary: bool

    def __init__(
        self, behavior: Behavior, handler: Handler, metrics: MethodMetrics, limits: MessageLimits
    ) -> None:
        self._behavior = behavior
        self._deserialize: Callable[[Any], Any] = handler.request_deserializer or bytes
        self._serialize: Callable[[Any], bytes] = handler.response_serializer or bytes
        self._takes_stream = bool(handler.request_streaming)
        self._metrics = metrics
        self._limits = limits

    async def answer(self, call: Call) -> bytes | None:
        """Answers a call; returns the response of a unary method."""
        with _Counted(self._metrics, call):
            request = self._requests(call) if self._takes_stream else await self._request(call)
            return await self._respond(request, call)
        return None  # an error, which is the call's status now

    @abstractmethod
    async def _respond(self, request: Any, call: Call) -> bytes | None:
        """Sends the responses of a stream, or returns the one of a unary method."""

    async def _request(self, call: Call) -> Any:
        data = await call.messages.read()
        if data is None or await call.messages.read() is not None:
            raise UnimplementedError("the method takes one message, neither none nor several")
        if len(data) >= self._limits.smallest_excess:
            await self._check(data)
        return self._deserialized(data)

    async def _requests(self, call: Call) -> AsyncIterator[Any]:
        while (data := await call.messages.read()) is not None:
            if len(data) >= self._limits.smallest_excess:
                await self._check(data)
            yield self._deserialized(data)

    async def _check(self, data: bytes | memoryview) -> None:
        try:
            await self._limits.check(data)
        except DecodeError as error:
            raise _malformed() from error

    def _deserialized(self, data: bytes | memoryview) -> Any:
        self._metrics.received += 1
        try:
            return self._deserialize(data)
        except DecodeError as error:
            raise _malformed() from error


class _UnaryMethod(_Method):
    is_unary = True

    async def _respond(self, request: Any, call: Call) -> bytes:
        response = self._serialize(await self._behavior(request, CallContext(call)))
        self._metrics.sent += 1
        return response


class _StreamMethod(_Method):
    is_unary = False

    async def _respond(self, request: Any, call: Call) -> None:
        responses = self._behavior(request, CallContext(call, self._serialize))
        if inspect.isawaitable(responses):  # it writes to the call itself
            await responses
            return
        async with aclosing(responses):
            async for response in responses:
                await call.response.send(self._serialize(response))
                self._metrics.sent += 1


class _Counted:
    """Context of one call: counts it, and sets the status of its error."""

    __slots__ = ("_began", "_call", "_metrics")

    def __init__(self, metrics: MethodMetrics, call: Call) -> None:
        self._metrics = metrics
        self._call = call
        self._began = time.monotonic()

    def __enter__(self) -> None:
        self._metrics.started += 1

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> bool:
        if isinstance(error, asyncio.CancelledError) and self._call.refusal is not None:
            error = self._call.refusal
            self._call.task.uncancel()
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._count(self._call.end_of_cancelled[0])
            return False
        if isinstance(error, Exception) and not isinstance(error, aio.AbortError):
            # The boundary: every error is translated here.
            _set_status(self._call, error, self._metrics.path)
        # Before the call ends, since its caller may read the metrics next.
        self._count(self._call.response.code)
        return isinstance(error, Exception)

    def _count(self, code: grpc.StatusCode) -> None:
        self._metrics.end(_CODE_LABELS[code], time.monotonic() - self._began)


def _malformed() -> InvalidArgumentError:
    return InvalidArgumentError.of("request", "is not a message of the method's type")


def _set_status(call: Call, error: Exception, path: str) -> None:
    if isinstance(error, ServiceError):
        code, status = to_status(error)
        call.response.set_status(code, str(error), ((DETAILS_KEY, status.SerializeToString()),))
        return
    if isinstance(error, NotImplementedError) and call.response.code is not grpc.StatusCode.OK:
        return  # the stubs' base classes set the status and raise
    # The details are for the operator: the caller gets the number of the log entry.
    incident = secrets.token_hex(4)
    _LOG.error("a call failed", method=path, incident=incident, exc_info=error)
    message = f"an internal error: see incident {incident} in the server's log"
    call.response.set_status(grpc.StatusCode.INTERNAL, message)


def _method(handler: Any, metrics: MethodMetrics, limits: MessageLimits) -> _Method:
    behavior = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    make = _StreamMethod if handler.response_streaming else _UnaryMethod
    return make(behavior, handler, metrics, limits)


def _kind(handler: Handler) -> str:
    return {
        (False, False): "unary",
        (False, True): "server_stream",
        (True, False): "client_stream",
        (True, True): "bidi_stream",
    }[bool(handler.request_streaming), bool(handler.response_streaming)]
