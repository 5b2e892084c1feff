"""Registers the Open Inference Protocol's methods under the protocol's service name."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpc import aio

from leadline.oip.v2 import open_inference_pb2
from leadline.oip.v2.open_inference_pb2 import ModelInferRequest
from leadline.server.api.oip.reflection import WIRE_PACKAGE
from leadline.server.api.oip.requests import parse
from leadline.server.api.oip.servicer import OpenInferenceServicer
from leadline.server.errors import UnimplementedError

SERVICE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE_NAME = f"{WIRE_PACKAGE}.{SERVICE.name}"

_SHARED_MEMORY = "this server has no shared memory: send tensors in the message"

UNSUPPORTED = {
    "SystemSharedMemoryStatus": _SHARED_MEMORY,
    "SystemSharedMemoryRegister": _SHARED_MEMORY,
    "SystemSharedMemoryUnregister": _SHARED_MEMORY,
    "CudaSharedMemoryStatus": _SHARED_MEMORY,
    "CudaSharedMemoryRegister": _SHARED_MEMORY,
    "CudaSharedMemoryUnregister": _SHARED_MEMORY,
    "TraceSetting": "this server traces no requests: see its metrics and its log",
    "LogSettings": "logging is set at the start, with --log-level and --log-format",
}


def add_open_inference(servicer: OpenInferenceServicer, server: aio.Server) -> None:
    """Registers every method of the service."""
    handlers = {method.name: _handler(method, servicer) for method in SERVICE.methods}
    server.add_registered_method_handlers(SERVICE_NAME, handlers)


def _handler(
    method: MethodDescriptor, servicer: OpenInferenceServicer
) -> "grpc.RpcMethodHandler[Any, Any]":
    reason = UNSUPPORTED.get(method.name)
    behavior = _refusal(method.name, reason) if reason else getattr(servicer, method.name)
    make: Callable[..., grpc.RpcMethodHandler[Any, Any]] = (
        grpc.stream_stream_rpc_method_handler
        if method.client_streaming
        else grpc.unary_unary_rpc_method_handler
    )
    is_inference = method.input_type is ModelInferRequest.DESCRIPTOR
    return make(
        behavior,
        request_deserializer=parse
        if is_inference
        else message_factory.GetMessageClass(method.input_type).FromString,
        response_serializer=_serialize,
    )


def _serialize(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def _refusal(name: str, reason: str) -> Callable[[Empty, Any], Awaitable[Empty]]:
    async def refuse(request: Empty, context: Any) -> Empty:
        del request, context
        raise UnimplementedError(f"{name} is not supported: {reason}")

    return refuse
