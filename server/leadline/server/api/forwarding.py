"""Which methods a serving process forwards to the main process, and how.

A serving process itself answers calls that only need the store's models and the network. The
main process answers all others: writes, the scheduler, watchers, listings, and sums over processes.
"""

from collections.abc import AsyncIterator

import grpc

from leadline.server.api.dispatcher import Handler
from leadline.server.api.oip.service import SERVICE_NAME
from leadline.server.transport.context import CallContext
from leadline.server.transport.links import Link, Reply
from leadline.v1 import (
    inference_service_pb2,
    inspection_service_pb2,
    training_service_pb2,
)

_INFERENCE = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name

FORWARDED = frozenset(
    [
        *(
            f"/{service.full_name}/{method.name}"
            for service in (
                training_service_pb2.DESCRIPTOR.services_by_name["TrainingService"],
                inspection_service_pb2.DESCRIPTOR.services_by_name["InspectionService"],
            )
            for method in service.methods
        ),
        *(f"/{_INFERENCE}/{name}" for name in ("GetModel", "ListModels", "ExportModel")),
        *(
            f"/{SERVICE_NAME}/{name}"
            for name in (
                "ModelStatistics",
                "RepositoryIndex",
                "RepositoryModelLoad",
                "RepositoryModelUnload",
            )
        ),
    ]
)
"""The paths of the methods that the main process answers."""


class AnsweredElsewhere:
    """Takes the place of a servicer whose methods are all forwarded."""

    def __getattr__(self, name: str) -> None:
        """No method: no call comes to it."""


class Forwarder:
    """Makes the methods of a serving process that the main process answers."""

    def __init__(self, main: Link) -> None:
        self._main = main

    def __call__(self, path: str, handler: Handler) -> "Handler | None":
        """Makes a handler that forwards the calls of a path; None if this process answers them."""
        if path not in FORWARDED:
            return None

        async def stream(request: bytes, context: CallContext) -> AsyncIterator[bytes]:
            reply, seconds = Reply(), context.time_remaining()
            async with self._main.call(
                path,
                request,
                reply=reply,
                identity=context.identity,
                peer=context.peer(),
                seconds=seconds,
            ) as responses:
                async for response in responses:
                    yield response
            if reply.code is not grpc.StatusCode.OK:
                await context.abort(reply.code, reply.message, reply.trailing)

        async def respond(request: bytes, context: CallContext) -> bytes:
            return [response async for response in stream(request, context)][-1]

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(respond)
