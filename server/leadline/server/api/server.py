"""The gRPC server: its services, its bounds, its health."""

from dataclasses import dataclass
from typing import cast

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from leadline.server.api.handlers import Handlers
from leadline.server.api.inference import InferenceServicer
from leadline.server.api.inspection import InspectionServicer
from leadline.server.api.oip import service as open_inference
from leadline.server.api.oip.reflection import reflection_pool
from leadline.server.api.oip.servicer import OpenInferenceServicer
from leadline.server.api.training import TrainingServicer
from leadline.server.settings import Settings
from leadline.server.telemetry.metrics import GrpcMetrics
from leadline.v1 import (
    inference_service_pb2,
    inference_service_pb2_grpc,
    inspection_service_pb2,
    inspection_service_pb2_grpc,
    training_service_pb2,
    training_service_pb2_grpc,
)

# The health service's name for the server as a whole.
_WHOLE_SERVER = ""

SERVICE_NAMES = (
    training_service_pb2.DESCRIPTOR.services_by_name["TrainingService"].full_name,
    inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name,
    inspection_service_pb2.DESCRIPTOR.services_by_name["InspectionService"].full_name,
    open_inference.SERVICE_NAME,
)


@dataclass(frozen=True, kw_only=True)
class Servicers:
    """What answers the calls."""

    training: TrainingServicer
    inference: InferenceServicer
    inspection: InspectionServicer
    open_inference: OpenInferenceServicer


class GrpcServer:
    """A server of all services on one port."""

    def __init__(self, settings: Settings, servicers: Servicers, metrics: GrpcMetrics) -> None:
        self._settings = settings
        self._server = aio.server(options=_options(settings))
        self._health = HealthServicer()
        handlers = Handlers(metrics)
        # To the stubs it is the server.
        self._register(servicers, cast(aio.Server, handlers))
        self._server.add_generic_rpc_handlers((handlers,))

    def _register(self, servicers: Servicers, server: aio.Server) -> None:
        training_service_pb2_grpc.add_TrainingServiceServicer_to_server(servicers.training, server)
        inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(
            servicers.inference, server
        )
        inspection_service_pb2_grpc.add_InspectionServiceServicer_to_server(
            servicers.inspection, server
        )
        open_inference.add_open_inference(servicers.open_inference, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._settings.reflection:
            names = (*SERVICE_NAMES, "grpc.health.v1.Health", reflection.SERVICE_NAME)
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
                ReflectionServicer(names, pool=reflection_pool(names)), server
            )

    async def start(self) -> int:
        """Begins to serve; returns the port.

        Raises:
            OSError: the address or the port cannot be had.
        """
        host, port = self._settings.host, self._settings.port
        try:
            bound = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(
                f"gRPC cannot be served on {host}:{port}: it is in use or not allowed; "
                "name another with --port, 0 for a free one"
            ) from error
        await self._server.start()
        for service in (_WHOLE_SERVER, *SERVICE_NAMES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return bound

    async def announce_stop(self) -> None:
        """Makes health say that new calls should go elsewhere."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_seconds: float) -> None:
        """Refuses new calls, and ends those that outlast the grace."""
        await self._server.stop(grace_seconds)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        # Two servers on one port would each get half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # Answers are bounded by the sizes of pages and requests.
        ("grpc.max_send_message_length", -1),
        # A dead client is noticed within a minute, and a client may ping often
        # enough to keep its streams through proxies: ours does so each 30 s.
        ("grpc.keepalive_time_ms", 40_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
    ]
