from importlib import resources
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2
from grpc_tools import protoc

from leadline.v1 import (
    inference_service_pb2,
    inspection_service_pb2,
    job_pb2,
    training_service_pb2,
    training_spec_pb2,
)


def test_the_services_have_the_promised_methods() -> None:
    services = {
        service.full_name: [method.name for method in service.methods]
        for file in (training_service_pb2, inference_service_pb2, inspection_service_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
    }

    assert services == {
        "leadline.v1.TrainingService": [
            *("TrainJob", "WatchJob", "GetJob", "ListJobs"),
            *("CancelJob", "PauseJob", "ResumeJob", "DeleteJob", "ListDiskUsage"),
            *("TrainSweep", "WatchSweep", "GetSweep", "ListSweeps"),
            *("CancelSweep", "PauseSweep", "ResumeSweep", "DeleteSweep"),
            "GetQuota",
        ],
        "leadline.v1.InferenceService": [
            *("Predict", "PredictStream", "ListModels", "GetModel", "ExportModel")
        ],
        "leadline.v1.InspectionService": [
            *("ListMisclassified", "GetConfusionMatrix"),
            *("CompareModels", "ListLikelyLabelErrors"),
        ],
    }


def test_a_message_of_a_stream_has_an_answer_or_an_error() -> None:
    response = inference_service_pb2.PredictStreamResponse.DESCRIPTOR
    oneof = response.oneofs_by_name["result"]

    assert {field.name: field.message_type.full_name for field in oneof.fields} == {
        "response": "leadline.v1.PredictResponse",
        "error": "google.rpc.Status",
    }


@pytest.mark.parametrize(
    "module", [status_pb2, error_details_pb2], ids=lambda it: it.DESCRIPTOR.name
)
def test_what_lies_beside_the_contract_is_googles(module: ModuleType, tmp_path: Path) -> None:
    third_party = Path(__file__).parents[2] / "protos" / "third_party"
    known = resources.files("grpc_tools") / "_proto"
    output = tmp_path / "descriptors"
    name = module.DESCRIPTOR.name
    paths = [f"--proto_path={path}" for path in (third_party, known)]
    assert protoc.main(["protoc", *paths, f"--descriptor_set_out={output}", name]) == 0

    (file,) = FileDescriptorSet.FromString(output.read_bytes()).file

    assert file.package == module.DESCRIPTOR.package
    for message in file.message_type:
        theirs = DescriptorProto()
        module.DESCRIPTOR.message_types_by_name[message.name].CopyToProto(theirs)
        assert_part(message, theirs)


def assert_part(ours: DescriptorProto, theirs: DescriptorProto) -> None:
    """Checks that the fields of a message, and of the messages within it, are a subset of the
    other's."""
    fields = {field.number: field for field in theirs.field}
    assert ours.field
    for field in ours.field:
        field.ClearField("json_name")
        assert field == fields[field.number]
    nested = {message.name: message for message in theirs.nested_type}
    for message in ours.nested_type:
        assert_part(message, nested[message.name])


def test_a_spec_tells_zero_from_unset() -> None:
    spec = training_spec_pb2.TrainingSpec(blocks=0, momentum=0.0)

    assert spec.HasField("blocks")
    assert spec.HasField("momentum")
    assert not spec.HasField("epochs")


def test_events_are_a_oneof_with_room_for_more_kinds() -> None:
    oneof = job_pb2.JobEvent.DESCRIPTOR.oneofs_by_name["event"]

    assert [field.name for field in oneof.fields] == [
        *("queued", "started", "epoch", "finished", "paused", "resumed", "progress")
    ]
    assert all(field.type == FieldDescriptor.TYPE_MESSAGE for field in oneof.fields)
