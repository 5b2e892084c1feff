"""What happens around every RPC: errors become status, and all is counted."""

import asyncio
import inspect
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc import aio

from leadline.server.api.errors import DETAILS_KEY, to_status
from leadline.server.errors import InvalidArgumentError, ServiceError
from leadline.server.telemetry.metrics import GrpcMetrics

_LOG = structlog.get_logger(__name__)

# grpc's classes are generic to type checkers alone.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context = aio.ServicerContext[Any, Any]
Behavior = Callable[[Any, Context], Any]
Labels = tuple[str, str, str]

# The label values that go-grpc-middleware made usual.
_CODE_LABELS = {
    code.value[0]: "".join(word.capitalize() for word in code.name.split("_"))
    for code in grpc.StatusCode
} | {grpc.StatusCode.OK.value[0]: "OK", grpc.StatusCode.CANCELLED.value[0]: "Canceled"}


class CallInterceptor(aio.ServerInterceptor):
    """Translates errors and counts calls, for every kind of method."""

    def __init__(self, metrics: GrpcMetrics) -> None:
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Wraps the method's handler."""
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method: gRPC itself answers UNIMPLEMENTED
            return None
        wrap = self._wrap_stream if handler.response_streaming else self._wrap_unary
        labels = _labels(handler, handler_call_details.method)
        behavior, make_handler = _parts(handler)
        return make_handler(
            wrap(self._counting_requests(behavior, handler, labels), labels),
            request_deserializer=_deserializer(handler),
            response_serializer=handler.response_serializer,
        )

    def _wrap_unary(self, behavior: Behavior, labels: Labels) -> Behavior:
        async def respond(request: Any, context: Context) -> Any:
            async with self._around(labels, context):
                response = await behavior(request, context)
                self._metrics.sent.labels(*labels).inc()
                return response

        return respond

    def _wrap_stream(self, behavior: Behavior, labels: Labels) -> Behavior:
        async def respond(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._around(labels, context):
                responses = behavior(request, context)
                if inspect.isawaitable(responses):  # it writes to the context by itself
                    await responses
                    return
                async for response in responses:
                    yield response
                    self._metrics.sent.labels(*labels).inc()

        return respond

    def _counting_requests(self, behavior: Behavior, handler: Handler, labels: Labels) -> Behavior:
        received = self._metrics.received.labels(*labels)

        def count_one(request: Any, context: Context) -> Any:
            received.inc()
            return behavior(_well_formed(request), context)

        async def count_all(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
            async for request in requests:
                received.inc()
                yield _well_formed(request)

        if handler.request_streaming:
            return lambda requests, context: behavior(count_all(requests), context)
        return count_one

    @asynccontextmanager
    async def _around(self, labels: Labels, context: Context) -> AsyncIterator[None]:
        self._metrics.started.labels(*labels).inc()
        began = time.monotonic()

        def count(code: int) -> None:
            self._metrics.handled.labels(*labels, _CODE_LABELS[code]).inc()
            self._metrics.seconds.labels(*labels).observe(time.monotonic() - began)

        try:
            yield
            count(_code(context))
        except (asyncio.CancelledError, GeneratorExit):
            count(_code_of_cancellation(context))
            raise
        except aio.AbortError:
            count(_code(context))
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: no error passes untranslated
            status_code, abort = _translate(error, labels)
            # Before the caller hears of it, who may look at the metrics next.
            count(status_code.value[0])
            await abort(context)


class _Malformed:
    """Stands for bytes that are no message.

    What a deserializer raises gRPC itself answers, as UNKNOWN; so that the
    answer is ours, it passes this on instead.
    """


def _deserializer(handler: Handler) -> Callable[[bytes], Any]:
    def deserialize(data: bytes) -> Any:
        try:
            return handler.request_deserializer(data) if handler.request_deserializer else data
        except DecodeError:
            return _Malformed()

    return deserialize


def _well_formed(request: Any) -> Any:
    if isinstance(request, _Malformed):
        raise InvalidArgumentError.of("request", "is not a message of the method's type")
    return request


def _translate(
    error: Exception, labels: Labels
) -> tuple[grpc.StatusCode, Callable[[Context], Awaitable[None]]]:
    if isinstance(error, ServiceError):
        code, status = to_status(error)
        details = ((DETAILS_KEY, status.SerializeToString()),)
        return code, lambda context: context.abort(code, str(error), details)
    # What went wrong inside is for the operator: the caller gets the number
    # under which the log tells of it.
    incident = secrets.token_hex(4)
    _LOG.error("a call failed", method="/".join(labels[1:]), incident=incident, exc_info=error)
    message = f"an internal error, which the server's log tells of as incident {incident}"
    return grpc.StatusCode.INTERNAL, lambda context: context.abort(
        grpc.StatusCode.INTERNAL, message
    )


def _code(context: Context) -> int:
    # The stubs say StatusCode; it is the number, and 0 where none was set.
    code: Any = context.code()
    return int(code.value[0]) if isinstance(code, grpc.StatusCode) else int(code or 0)


def _code_of_cancellation(context: Context) -> int:
    # The stubs say float; without a deadline it is None.
    remaining: Any = context.time_remaining()
    late = remaining is not None and remaining <= 0
    code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
    return int(code.value[0])


def _labels(handler: Handler, method: str) -> Labels:
    _, service, name = method.split("/", 2)
    kind = {
        (False, False): "unary",
        (False, True): "server_stream",
        (True, False): "client_stream",
        (True, True): "bidi_stream",
    }[bool(handler.request_streaming), bool(handler.response_streaming)]
    return kind, service, name


def _parts(handler: Any) -> tuple[Behavior, Callable[..., Handler]]:
    if handler.request_streaming and handler.response_streaming:
        return handler.stream_stream, grpc.stream_stream_rpc_method_handler
    if handler.request_streaming:
        return handler.stream_unary, grpc.stream_unary_rpc_method_handler
    if handler.response_streaming:
        return handler.unary_stream, grpc.unary_stream_rpc_method_handler
    return handler.unary_unary, grpc.unary_unary_rpc_method_handler
