import re
from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor
from google.rpc import status_pb2

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
            *("CancelJob", "PauseJob", "ResumeJob", "DeleteJob"),
            *("TrainSweep", "WatchSweep", "GetSweep", "ListSweeps"),
            *("CancelSweep", "PauseSweep", "ResumeSweep", "DeleteSweep"),
        ],
        "leadline.v1.InferenceService": ["Predict", "PredictStream", "ListModels", "GetModel"],
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


def test_the_status_that_lies_beside_the_contract_is_googles() -> None:
    third_party = Path(__file__).parents[2] / "protos" / "third_party"
    source = (third_party / status_pb2.DESCRIPTOR.name).read_text()
    declared = re.findall(r"^  (?:repeated )?[\w.]+ (\w+) = (\d+);", source, re.MULTILINE)

    assert declared == [
        (field.name, str(field.number)) for field in status_pb2.Status.DESCRIPTOR.fields
    ]


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
