"""The gRPC server: its services, its limits, its health."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from leadline.server.access.control import AccessControl
from leadline.server.access.meter import UsageMeter
from leadline.server.api.admission import CallAdmission
from leadline.server.api.auditing import CallAudit
from leadline.server.api.dispatcher import RpcDispatcher
from leadline.server.api.forwarding import AnsweredElsewhere, Forwarder
from leadline.server.api.inference import InferenceServicer
from leadline.server.api.inspection import InspectionServicer
from leadline.server.api.oip import service as open_inference
from leadline.server.api.oip.reflection import REFLECTION_NAMES, reflection_pool
from leadline.server.api.oip.servicer import OpenInferenceServicer
from leadline.server.api.ordered_pipeline import PipelineGroup
from leadline.server.api.training import TrainingServicer
from leadline.server.settings import Settings
from leadline.server.telemetry.calls import GrpcMetrics
from leadline.server.telemetry.logs import logs_are_json
from leadline.server.tls import TlsCertificates
from leadline.server.transport.calls import Calls, Method
from leadline.server.transport.links import Link
from leadline.server.transport.listener import ListenerOptions
from leadline.server.transport.sockets import free_port
from leadline.server.transport.transports import make_listener
from leadline.v1 import (
    inference_service_pb2,
    inference_service_pb2_grpc,
    inspection_service_pb2,
    inspection_service_pb2_grpc,
    training_service_pb2,
    training_service_pb2_grpc,
)

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# The health service's name for the server as a whole.
_WHOLE_SERVER = ""

_TRAINING = training_service_pb2.DESCRIPTOR.services_by_name["TrainingService"].full_name
_INFERENCE = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
_INSPECTION = inspection_service_pb2.DESCRIPTOR.services_by_name["InspectionService"].full_name

SERVICE_NAMES = (_TRAINING, _INFERENCE, _INSPECTION, open_inference.SERVICE_NAME)

# The share of the grace period after SIGTERM in which calls end and send their status. The
# rest is for the workers and the store.
_CALLS_SHARE = 0.6
_FLUSH_SHARE = 0.15

# The least time for calls to send their status.
_FLUSH_SECONDS = 0.5

# The parts that each service needs. If the store rejects writes, predictions still work and a
# restart would not help: so the server as a whole still reports SERVING. The part "main" is
# the main process, as another process sees it.
_PARTS_OF = {
    _TRAINING: frozenset({"store", "writes", "scheduler", "main"}),
    _INFERENCE: frozenset({"store", "predictions"}),
    _INSPECTION: frozenset({"store", "main"}),
    open_inference.SERVICE_NAME: frozenset({"store", "predictions"}),
    _WHOLE_SERVER: frozenset({"store", "predictions", "scheduler", "main"}),
}


@dataclass(frozen=True, kw_only=True)
class Servicers:
    """The servicers by service, and the prediction streams that they share."""

    training: TrainingServicer | AnsweredElsewhere
    inference: InferenceServicer
    inspection: InspectionServicer | AnsweredElsewhere
    open_inference: OpenInferenceServicer
    streams: PipelineGroup


class GrpcServer:
    """A server of all services on one port."""

    def __init__(
        self,
        settings: Settings,
        servicers: Servicers,
        metrics: GrpcMetrics,
        access: AccessControl,
        *,
        meter: UsageMeter,
        audit: CallAudit | None = None,
        main: Link | None = None,
        tls: TlsCertificates | None = None,
    ) -> None:
        """Makes a server, which `start` binds.

        Args:
            settings: the server's options.
            servicers: the servicers of the services.
            metrics: counts the calls.
            access: authenticates the callers.
            meter: holds the calls to the quotas of their callers.
            audit: records the calls; None: there is no audit log.
            main: the link to the main process; None in the main process itself.
            tls: the certificates; None for plain text.

        Raises:
            TlsError: the transport cannot do what the options ask for.
        """
        self._settings = settings
        self._is_main = main is None
        self._health = HealthServicer()
        self._open_inference = servicers.open_inference
        dispatcher = RpcDispatcher(metrics, meter, audit, *([Forwarder(main)] if main else []))
        self._register(servicers, cast(aio.Server, dispatcher))
        self._grace_seconds = _CALLS_SHARE * settings.shutdown_grace_seconds
        self._own_methods = dispatcher.own_methods
        self._linked: list[Calls] = []
        self._admission = CallAdmission(access, dispatcher.methods, metrics.denied, audit)
        self._calls = Calls(dispatcher.methods, self._admission)
        grace = settings.shutdown_grace_seconds
        self._listener = make_listener(
            settings.transport,
            self._calls,
            ListenerOptions(
                max_message_bytes=settings.max_message_bytes,
                max_message_memory_bytes=settings.max_message_memory_bytes,
                max_pending_per_stream=settings.max_pending_per_stream,
                grace_seconds=self._grace_seconds,
                flush_seconds=max(_FLUSH_SHARE * grace, _FLUSH_SECONDS),
                json_logs=logs_are_json(settings.log_format),
                max_connection_age_seconds=settings.max_connection_age_seconds,
                max_connection_age_grace_seconds=settings.max_connection_age_grace_seconds,
                shares_port=settings.serving_processes > 1,
                tls=tls,
            ),
        )

    def linked_calls(self, methods: Mapping[str, Method]) -> Calls:
        """Makes the calls of another process: methods of this process, and these methods.

        The other process has admitted the calls that it forwards.
        """
        calls = Calls({**self._own_methods, **methods})
        self._linked.append(calls)
        return calls

    def _register(self, servicers: Servicers, server: aio.Server) -> None:
        training_service_pb2_grpc.add_TrainingServiceServicer_to_server(
            cast(TrainingServicer, servicers.training), server
        )
        inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(
            servicers.inference, server
        )
        inspection_service_pb2_grpc.add_InspectionServiceServicer_to_server(
            cast(InspectionServicer, servicers.inspection), server
        )
        open_inference.add_open_inference(servicers.open_inference, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._settings.reflection:
            _add_reflection(server)

    async def start(self) -> int:
        """Starts to serve; returns the port.

        Raises:
            OSError: the address or the port is not available.
        """
        host, port = self._settings.host, self._settings.port
        try:
            if self._is_main and self._settings.serving_processes > 1:
                # The processes of another server could share the port, too.
                port = await free_port(host, port)
            bound = await self._listener.start(host, port)
        except OSError as error:
            raise OSError(
                f"gRPC cannot be served on {host}:{port}: {error.strerror}; "
                "name another address with --host, another port with --port, 0 for a free one"
            ) from error
        await self.report_failing(())
        return bound

    async def report_failing(self, parts: Collection[str]) -> None:
        """Makes health report SERVING only for services that need none of these parts."""
        for service, needed in _PARTS_OF.items():
            is_serving = needed.isdisjoint(parts)
            await self._health.set(service, _SERVING if is_serving else _NOT_SERVING)
            if service == open_inference.SERVICE_NAME:
                self._open_inference.report_health(is_serving=is_serving)

    async def wait_broken(self) -> None:
        """Waits until the server fails.

        Raises:
            Exception: the cause.
        """
        await self._listener.wait_broken()

    async def recheck(self) -> None:
        """Ends the calls in flight whose caller may not make them any more."""
        await self._admission.recheck(self._calls)

    async def announce_stop(self) -> None:
        """Reports NOT_SERVING, so that new calls go elsewhere."""
        await self._health.enter_graceful_shutdown()

    async def stop(self) -> None:
        """Rejects new calls, and ends calls that outlast the grace period."""
        linked = (calls.stop(self._grace_seconds) for calls in self._linked)
        await asyncio.gather(self._listener.stop(), *linked)


def _add_reflection(server: aio.Server) -> None:
    """Adds reflection in both of its versions, whose messages are the same on the wire."""
    names = (*SERVICE_NAMES, "grpc.health.v1.Health", *REFLECTION_NAMES)
    servicer = ReflectionServicer(names, pool=reflection_pool(names))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in REFLECTION_NAMES:
        server.add_registered_method_handlers(name, {"ServerReflectionInfo": handler})
