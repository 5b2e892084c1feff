"""The services as bare gRPC stubs, and readers of their statuses."""

from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from leadline.v1.inference_service_pb2_grpc import InferenceServiceStub
from leadline.v1.inspection_service_pb2_grpc import InspectionServiceStub
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.training_service_pb2_grpc import TrainingServiceStub
from leadline.v1.training_spec_pb2 import TrainingSpec


@dataclass
class Stubs:
    """The three services, with a deadline for every call."""

    channel: grpc.Channel

    def __post_init__(self) -> None:
        self.training = TrainingServiceStub(self.channel)
        self.inference = InferenceServiceStub(self.channel)
        self.inspection = InspectionServiceStub(self.channel)


def connect(target: str) -> Stubs:
    """Returns stubs of the server at `target`."""
    return Stubs(grpc.insecure_channel(target))


def tiny_spec(**changes: Any) -> TrainingSpec:
    """Returns a spec that learns, with epochs of a fraction of a second."""
    values: dict[str, Any] = {
        "dataset": "tiny",
        "blocks": 1,
        "batch_norm": True,
        "epochs": 3,
        "batch_size": 20,
        "learning_rate": 0.01,
        "momentum": 0.9,
    }
    return TrainingSpec(**{**values, **changes})


def kind_and_sequence(events: list[JobEvent]) -> list[tuple[str | None, int]]:
    """Returns the kinds and sequences of events, without the progress of a silent stream."""
    return [(event.WhichOneof("event"), event.sequence) for event in events if event.sequence]


def violations(error: grpc.RpcError) -> dict[str, str]:
    """Returns the invalid fields in a status."""
    return {
        violation.field: violation.description
        for detail in details(error)
        if isinstance(detail, error_details_pb2.BadRequest)
        for violation in detail.field_violations
    }


def reason(error: grpc.RpcError) -> str:
    """Returns the machine-readable reason of a status."""
    infos = [detail for detail in details(error) if isinstance(detail, error_details_pb2.ErrorInfo)]
    assert len(infos) == 1
    assert infos[0].domain == "leadline"
    return str(infos[0].reason)


def details(error: Any) -> list[Any]:
    """Returns the unpacked details of a status."""
    metadata = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    assert status.message == error.details()
    kinds = (
        error_details_pb2.BadRequest,
        error_details_pb2.ErrorInfo,
        error_details_pb2.ResourceInfo,
        error_details_pb2.RetryInfo,
        error_details_pb2.PreconditionFailure,
    )
    messages = []
    for packed in status.details:
        (kind,) = [kind for kind in kinds if packed.Is(kind.DESCRIPTOR)]
        message = kind()
        packed.Unpack(message)
        messages.append(message)
    return messages
