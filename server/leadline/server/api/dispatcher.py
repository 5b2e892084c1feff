"""Finds the method of each call, runs it, converts errors to status, and counts calls."""

import asyncio
import inspect
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc import aio

from leadline.server.access.meter import UsageMeter
from leadline.server.api.auditing import NO_RECORD, CallAudit, CallRecord
from leadline.server.api.errors import status_to_send
from leadline.server.api.message_limits import MessageLimits, limits_of
from leadline.server.errors import (
    InvalidArgumentError,
    ServiceError,
    UnimplementedError,
)
from leadline.server.telemetry.calls import GrpcMetrics, MethodMetrics
from leadline.server.transport.call import Call
from leadline.server.transport.calls import Method
from leadline.server.transport.context import CallContext
from leadline.server.transport.response import OK

_LOG = structlog.get_logger(__name__)

# At run time, grpc's classes are not generic.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behavior = Callable[[Any, CallContext], Any]

# The label values of go-grpc-middleware, which dashboards expect.
_CODE_LABELS = {
    code: "".join(word.capitalize() for word in code.name.split("_")) for code in grpc.StatusCode
} | {grpc.StatusCode.OK: "OK", grpc.StatusCode.CANCELLED: "Canceled"}


class RpcDispatcher:
    """The server's methods by path.

    The stubs' `add_..._to_server` functions accept it in place of a
    `grpc.aio.Server`, and register methods.

    Attributes:
        methods: the methods by their paths.
        own_methods: the same, for calls that another process has forwarded here.
    """

    def __init__(
        self,
        metrics: GrpcMetrics,
        meter: UsageMeter | None = None,
        audit: CallAudit | None = None,
        forward: "Callable[[str, Handler], Handler | None]" = lambda _path, _handler: None,
    ) -> None:
        """Makes a dispatcher.

        Args:
            metrics: counts the calls.
            meter: holds the calls to the quotas of their callers; None: no quotas.
            audit: records the calls; None: there is no audit log.
            forward: what has another process answer the calls of a path instead of its
                handler, if anything.
        """
        self._metrics = metrics
        self._meter = meter
        self._audit = audit
        self._forward = forward
        self.methods: dict[str, Method] = {}
        self.own_methods: dict[str, Method] = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Does nothing: the stubs also call `add_registered_method_handlers`."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Registers the methods of a service."""
        for name, handler in handlers.items():
            path, limits = f"/{service}/{name}", limits_of(service, name)
            metrics = self._metrics.method(_kind(handler), service, name)
            forwarded = self._forward(path, handler)
            # The process that answers a call records it: it knows the messages.
            audit = None if forwarded else self._audit
            self.methods[path] = _method(
                forwarded or handler, metrics, limits, meter=self._meter, audit=audit
            )
            # The process that has forwarded a call counts it.
            uncounted = MethodMetrics(*metrics.labels)
            self.own_methods[path] = _method(
                handler, uncounted, limits, meter=None, audit=self._audit
            )


class _Method:
    """A servicer's method.

    Attributes:
        is_unary: whether it responds with one message.
    """

    def __init__(
        self,
        behavior: Behavior,
        handler: Handler,
        metrics: MethodMetrics,
        limits: MessageLimits,
        *,
        meter: UsageMeter | None,
        audit: CallAudit | None,
    ) -> None:
        self.is_unary = not handler.response_streaming
        self._behavior = behavior
        self._deserialize: Callable[[Any], Any] = handler.request_deserializer or bytes
        self._serialize: Callable[[Any], bytes] = handler.response_serializer or bytes
        self._takes_stream = bool(handler.request_streaming)
        self._metrics = metrics
        self._limits = limits
        self._meter = meter
        self._audit = audit

    async def answer(self, call: Call) -> bytes | None:
        """Answers a call; returns the response of a unary method."""
        metrics = self._metrics
        began = time.monotonic()
        metrics.started += 1
        response: bytes | None = None
        failure: Exception | None = None
        record = NO_RECORD if self._audit is None else self._audit.start(call, metrics.path)
        try:
            response = await self._respond(call, record)
        except (asyncio.CancelledError, GeneratorExit) as error:
            if call.refusal is None or isinstance(error, GeneratorExit):
                metrics.end(_CODE_LABELS[call.end_of_cancelled[0]], time.monotonic() - began)
                record.make()
                raise
            call.task.uncancel()
            failure = call.refusal
        except aio.AbortError:
            pass  # the status is set
        except Exception as error:  # noqa: BLE001 - the boundary: converts every error to a status
            failure = error
        if failure is not None:
            _set_status(call, failure, metrics.path)
        record.make(error=failure)
        # Before the call ends, because its caller may read the metrics next.
        code = call.response.code
        metrics.end("OK" if code is OK else _CODE_LABELS[code], time.monotonic() - began)
        return response

    async def _respond(self, call: Call, record: CallRecord) -> bytes | None:
        """Runs the servicer's method; returns the response of a unary one."""
        if self._meter is not None:
            end = self._meter.begin(call.identity)
            if end is not None:
                call.add_done_callback(end)
        if self._takes_stream:
            request = self._requests(call)
        else:
            data = await call.messages.read_single()
            if data is None or len(data) >= self._limits.smallest_excess:
                data = await self._checked(data)
            request = self._deserialized(data, call)
            record.take(request)
        if not self.is_unary:
            await self._send_responses(request, call, record)
            return None
        message = await self._behavior(request, CallContext(call))
        record.make(message)
        response = self._serialized(message)
        self._metrics.sent += 1
        return response

    async def _requests(self, call: Call) -> AsyncIterator[Any]:
        while (data := await call.messages.read()) is not None:
            if len(data) >= self._limits.smallest_excess:
                await self._checked(data)
            yield self._deserialized(data, call)

    async def _checked(self, data: bytes | memoryview | None) -> bytes | memoryview:
        """Returns the message after checking its limits.

        Raises:
            UnimplementedError: there is not exactly one message.
            InvalidArgumentError: the message is malformed or exceeds a limit.
        """
        if data is None:
            raise UnimplementedError("the method takes exactly one message")
        try:
            await self._limits.check(data)
        except DecodeError as error:
            raise _malformed() from error
        return data

    def _deserialized(self, data: bytes | memoryview, call: Call) -> Any:
        self._metrics.received += 1
        if self._meter is not None:
            self._meter.check_upload(call.identity, len(data))
        try:
            return self._deserialize(data)
        except DecodeError as error:
            raise _malformed() from error

    def _serialized(self, response: Any) -> bytes:
        return response if isinstance(response, bytes) else self._serialize(response)

    async def _send_responses(self, request: Any, call: Call, record: CallRecord) -> None:
        responses = self._behavior(request, CallContext(call, self._serialize))
        if inspect.isawaitable(responses):  # it writes to the call itself
            await responses
            return
        async with aclosing(responses):
            async for response in responses:
                record.make(response)
                await call.response.send(self._serialized(response))
                self._metrics.sent += 1


def _malformed() -> InvalidArgumentError:
    return InvalidArgumentError.of("request", "is not a message of the method's type")


def _set_status(call: Call, error: Exception, path: str) -> None:
    if isinstance(error, ServiceError):
        call.response.set_status(*status_to_send(error))
        return
    if isinstance(error, NotImplementedError) and call.response.code is not grpc.StatusCode.OK:
        return  # the stubs' base classes set the status and raise
    # The details are for the operator: the caller gets the number of the log entry.
    incident = secrets.token_hex(4)
    _LOG.error("a call failed", method=path, incident=incident, exc_info=error)
    message = f"an internal error: see incident {incident} in the server's log"
    call.response.set_status(grpc.StatusCode.INTERNAL, message)


def _method(
    handler: Any,
    metrics: MethodMetrics,
    limits: MessageLimits,
    *,
    meter: UsageMeter | None,
    audit: CallAudit | None,
) -> _Method:
    behavior = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    return _Method(behavior, handler, metrics, limits, meter=meter, audit=audit)


def _kind(handler: Handler) -> str:
    return {
        (False, False): "unary",
        (False, True): "server_stream",
        (True, False): "client_stream",
        (True, True): "bidi_stream",
    }[bool(handler.request_streaming), bool(handler.response_streaming)]
