"""The service of gRPC's interoperability tests, served by the project's dispatcher and transports.

Source: gRPC's interop test descriptions, which define each method. `test_service.proto` has the
messages.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from struct import Struct
from typing import Any, cast

import grpc
from grpc import aio
from grpc_reflection.v1alpha import reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from leadline.server.api.dispatcher import RpcDispatcher
from leadline.server.telemetry.calls import GrpcMetrics
from leadline.server.transport.application import GrpcApplication
from leadline.server.transport.calls import Calls
from leadline.server.transport.h2corn import H2cornListener
from leadline.server.transport.listener import ListenerOptions
from leadline.server.transport.messages import Event, Receive
from leadline.server.transport.response import Send
from leadline.server.transport.transports import make_listener

_STUBS: tuple[Any, Any] = grpc.protos_and_services("clients/test_service.proto")
_MESSAGES, _SERVICES = _STUBS

TEST_SERVICE = "grpc.testing.TestService"

# Metadata that a response repeats.
_ECHO_INITIAL, _ECHO_TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"

_CODES = {code.value[0]: code for code in grpc.StatusCode}

_MAX_MESSAGE_BYTES = 4 << 20


class InteropServicer(_SERVICES.TestServiceServicer):  # type: ignore[misc, name-defined]
    """Implements `TestService`; the base class answers UnimplementedCall."""

    async def EmptyCall(self, request: Any, context: Any) -> Any:
        return _MESSAGES.Empty()

    async def UnaryCall(self, request: Any, context: Any) -> Any:
        await _check_compression(request, 0, context)
        await _echo(context)
        await _end_as_asked(request, context)
        return _MESSAGES.SimpleResponse(payload=_payload(request.response_size))

    async def StreamingOutputCall(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for parameters in request.response_parameters:
            await asyncio.sleep(parameters.interval_us / 1e6)
            yield _MESSAGES.StreamingOutputCallResponse(payload=_payload(parameters.size))

    async def StreamingInputCall(self, requests: AsyncIterator[Any], context: Any) -> Any:
        size = number = 0
        async for request in requests:
            await _check_compression(request, number, context)
            size += len(request.payload.body)
            number += 1
        return _MESSAGES.StreamingInputCallResponse(aggregated_payload_size=size)

    async def FullDuplexCall(
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        await _echo(context)
        async for request in requests:
            await _end_as_asked(request, context)
            async for response in self.StreamingOutputCall(request, context):
                yield response

    async def HalfDuplexCall(
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        for request in [request async for request in requests]:
            async for response in self.StreamingOutputCall(request, context):
                yield response


def _payload(size: int) -> Any:
    return _MESSAGES.Payload(body=bytes(size))


async def _echo(context: Any) -> None:
    asked = dict(context.invocation_metadata())
    if _ECHO_INITIAL in asked:
        await context.send_initial_metadata(((_ECHO_INITIAL, asked[_ECHO_INITIAL]),))
    if _ECHO_TRAILING in asked:
        context.set_trailing_metadata(((_ECHO_TRAILING, asked[_ECHO_TRAILING]),))


async def _end_as_asked(request: Any, context: Any) -> None:
    status = request.response_status
    if status.code:
        await context.abort(_CODES[status.code], status.message)


# Whether each received message of a call was compressed.
_FLAGS: ContextVar[list[bool]] = ContextVar("_FLAGS")


async def _check_compression(request: Any, number: int, context: Any) -> None:
    if request.HasField("expect_compressed"):
        was_compressed = _FLAGS.get()[number]
        if was_compressed != request.expect_compressed.value:
            message = f"message {number} has the compressed flag {was_compressed}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)


class _CompressionWatcher:
    """An ASGI application that records which messages are compressed; servicers cannot see it."""

    _PREFIX = Struct(">BI")

    def __init__(self, application: GrpcApplication) -> None:
        self._application = application

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        body = bytearray()
        flags: list[bool] = []
        _FLAGS.set(flags)

        async def watched() -> Event:
            event = await receive()
            body.extend(event.get("body", b""))
            while len(body) >= self._PREFIX.size:
                flag, length = self._PREFIX.unpack_from(body)
                end = self._PREFIX.size + length
                if len(body) < end:
                    break
                flags.append(bool(flag))
                del body[:end]
            return event

        await self._application(scope, watched, send)


@asynccontextmanager
async def interop_server(transport: str) -> AsyncIterator[int]:
    """A server of `TestService` and reflection; returns its port."""
    dispatcher = RpcDispatcher(GrpcMetrics())
    server = cast(aio.Server, dispatcher)
    _SERVICES.add_TestServiceServicer_to_server(InteropServicer(), server)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
        ReflectionServicer([TEST_SERVICE]), server
    )
    options = ListenerOptions(max_message_bytes=_MAX_MESSAGE_BYTES, grace_seconds=0)
    listener = make_listener(transport, Calls(dispatcher.methods), options)
    if isinstance(listener, H2cornListener):
        application: Any = _CompressionWatcher(listener._application)
        listener._application = application
    yield await listener.start("127.0.0.1", 0)
    await listener.stop()
