from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
)

from support.wire import Stubs


def test_services_can_be_called_through_reflection(stubs: Stubs, job_id: str) -> None:
    database = ProtoReflectionDescriptorDatabase(stubs.channel)
    pool: Any = DescriptorPool(database)

    def call(service_name: str, method: str, **fields: Any) -> Any:
        described = pool.FindServiceByName(service_name).methods_by_name[method]
        invoke: Any = stubs.channel.unary_unary(
            f"/{service_name}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(described.output_type).FromString,
        )
        return invoke(GetMessageClass(described.input_type)(**fields), timeout=10)

    assert call("inference.GRPCInferenceService", "ModelReady", name=job_id).ready
    assert call("leadline.v1.InferenceService", "GetModel", name=f"models/{job_id}").best_epoch
    assert call("grpc.health.v1.Health", "Check", service="inference.GRPCInferenceService").status
    assert pool.FindMessageTypeByName("google.rpc.ErrorInfo")
    assert pool.FindServiceByName("grpc.reflection.v1.ServerReflection")


def test_both_versions_of_reflection_answer_alike(stubs: Stubs) -> None:
    request = ServerReflectionRequest(list_services="")

    def services(version: str) -> list[str]:
        ask: Any = stubs.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
        (answer,) = ask(iter([request]), timeout=10)
        return [service.name for service in answer.list_services_response.service]

    assert services("v1") == services("v1alpha")
    assert "leadline.v1.TrainingService" in services("v1")
