"""What happens around every RPC: errors become status, and all is counted.

Each method is wrapped once, when it is registered. gRPC's own interceptors
would do so anew at every call, which at the rates of predictions is felt.
"""

import asyncio
import inspect
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc import aio

from leadline.server.api.errors import DETAILS_KEY, to_status
from leadline.server.errors import InvalidArgumentError, ServiceError
from leadline.server.telemetry.metrics import GrpcMetrics, MethodMetrics

_LOG = structlog.get_logger(__name__)

# grpc's classes are generic to type checkers alone.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context = aio.ServicerContext[Any, Any]
Behavior = Callable[[Any, Context], Any]

# The label values that go-grpc-middleware made usual.
_CODE_LABELS = {
    code.value[0]: "".join(word.capitalize() for word in code.name.split("_"))
    for code in grpc.StatusCode
} | {grpc.StatusCode.OK.value[0]: "OK", grpc.StatusCode.CANCELLED.value[0]: "Canceled"}


class Handlers(grpc.GenericRpcHandler):
    """Every method of the server by its path.

    It stands in for the server where the stubs' `add_..._to_server` functions
    register their methods, and is then added to the server as a whole.
    """

    def __init__(self, metrics: GrpcMetrics) -> None:
        self._metrics = metrics
        self._handlers: dict[str, Handler] = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Does nothing: what the stubs add here they register below as well."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Takes the methods of a service."""
        for name, handler in handlers.items():
            metrics = self._metrics.method(_kind(handler), service, name)
            self._handlers[f"/{service}/{name}"] = _wrap(handler, metrics)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "Handler | None":
        """The handler of a call's method; None where there is none."""
        return self._handlers.get(handler_call_details.method)


def _wrap(handler: Handler, metrics: MethodMetrics) -> Handler:
    behavior, make_handler = _parts(handler)
    counting = _counting_requests(behavior, handler, metrics)
    wrap = _wrap_stream if handler.response_streaming else _wrap_unary
    return make_handler(
        wrap(counting, metrics),
        request_deserializer=_deserializer(handler),
        response_serializer=handler.response_serializer,
    )


def _wrap_unary(behavior: Behavior, metrics: MethodMetrics) -> Behavior:
    async def respond(request: Any, context: Context) -> Any:
        async with _Call(metrics, context):
            response = await behavior(request, context)
            metrics.sent.inc()
            return response

    return respond


def _wrap_stream(behavior: Behavior, metrics: MethodMetrics) -> Behavior:
    async def respond(request: Any, context: Context) -> AsyncIterator[Any]:
        async with _Call(metrics, context):
            responses = behavior(request, context)
            if inspect.isawaitable(responses):  # it writes to the context by itself
                await responses
                return
            async for response in responses:
                yield response
                metrics.sent.inc()

    return respond


def _counting_requests(behavior: Behavior, handler: Handler, metrics: MethodMetrics) -> Behavior:
    received = metrics.received

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


class _Call:
    """Around one call: counts it, and ends it with the status of its error."""

    __slots__ = ("_began", "_context", "_metrics")

    def __init__(self, metrics: MethodMetrics, context: Context) -> None:
        self._metrics = metrics
        self._context = context
        self._began = time.monotonic()

    async def __aenter__(self) -> None:
        self._metrics.started.inc()

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, aio.AbortError):
            self._count(_code(self._context))
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._count(_code_of_cancellation(self._context))
        elif isinstance(error, Exception):
            # The boundary: no error passes untranslated.
            code, abort = _translate(error, self._metrics.path)
            # Before the caller hears of it, who may look at the metrics next.
            self._count(code.value[0])
            await abort(self._context)

    def _count(self, code: int) -> None:
        self._metrics.handled(_CODE_LABELS[code]).inc()
        self._metrics.seconds.observe(time.monotonic() - self._began)


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
    error: Exception, path: str
) -> tuple[grpc.StatusCode, Callable[[Context], Awaitable[None]]]:
    if isinstance(error, ServiceError):
        code, status = to_status(error)
        details = ((DETAILS_KEY, status.SerializeToString()),)
        return code, lambda context: context.abort(code, str(error), details)
    # What went wrong inside is for the operator: the caller gets the number
    # under which the log tells of it.
    incident = secrets.token_hex(4)
    _LOG.error("a call failed", method=path, incident=incident, exc_info=error)
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


def _kind(handler: Handler) -> str:
    return {
        (False, False): "unary",
        (False, True): "server_stream",
        (True, False): "client_stream",
        (True, True): "bidi_stream",
    }[bool(handler.request_streaming), bool(handler.response_streaming)]


def _parts(handler: Any) -> tuple[Behavior, Callable[..., Handler]]:
    if handler.request_streaming and handler.response_streaming:
        return handler.stream_stream, grpc.stream_stream_rpc_method_handler
    if handler.request_streaming:
        return handler.stream_unary, grpc.stream_unary_rpc_method_handler
    if handler.response_streaming:
        return handler.unary_stream, grpc.unary_stream_rpc_method_handler
    return handler.unary_unary, grpc.unary_unary_rpc_method_handler
