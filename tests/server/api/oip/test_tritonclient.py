"""The unmodified `tritonclient`, beside the project's own SDK in one process."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.protobuf.descriptor import Descriptor
from tritonclient.utils import InferenceServerException

from leadline.client import Client
from leadline.models.images import encode_png
from leadline.oip.v2 import open_inference_pb2
from leadline.server.api.oip.service import UNSUPPORTED
from support.open_inference import normalised
from support.servers import CLASSES, LiveServer

VARIANT = "tiny-1-blocks-batch-norm"


@pytest.fixture
def triton_client(live_server: LiveServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(live_server.target) as client:
        yield client


def images_input(images: np.ndarray, datatype: str) -> triton.InferInput:
    tensor = triton.InferInput("images", list(images.shape), datatype)
    tensor.set_data_from_numpy(images)
    return tensor


@pytest.fixture
def inputs(noise: np.ndarray) -> list[triton.InferInput]:
    return [images_input(noise, "UINT8")]


def test_the_server_and_its_models_are_described(
    triton_client: triton.InferenceServerClient, job_id: str
) -> None:
    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.get_server_metadata().name == "leadline"
    assert triton_client.is_model_ready(job_id)
    assert triton_client.is_model_ready(VARIANT, "1")
    assert not triton_client.is_model_ready(job_id, "99")
    assert not triton_client.is_model_ready("nosuchmodel")
    metadata = triton_client.get_model_metadata(VARIANT)
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs] == [
        ("images", "FP32", [-1, 3, 32, 32])
    ]
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.outputs] == [
        ("probabilities", "FP32", [-1, 10]),
        ("logits", "FP32", [-1, 10]),
    ]
    config = triton_client.get_model_config(job_id, "2", as_json=True)["config"]
    assert config["max_batch_size"] == 4096
    assert config["input"] == [
        {
            "name": "images",
            "data_type": "TYPE_FP32",
            "format": "FORMAT_NCHW",
            "dims": ["3", "32", "32"],
        }
    ]
    assert config["parameters"]["model"]["string_value"] == f"models/{job_id}/epochs/2"
    assert '"ibis"' in config["parameters"]["class_names"]["string_value"]


def test_tritonclient_gets_the_predictions_of_the_sdk(
    live_server: LiveServer,
    triton_client: triton.InferenceServerClient,
    job_id: str,
    noise: np.ndarray,
) -> None:
    files = [encode_png(image) for image in noise]
    with Client(live_server.target) as client:
        expected = client.predict(files, model=f"models/{job_id}", top_k=10)

    for images, datatype in (
        (noise, "UINT8"),
        (normalised(noise), "FP32"),
        (np.array(files, dtype=object), "BYTES"),
        (np.array(files, dtype=object).reshape(5, 1), "BYTES"),
    ):
        result = triton_client.infer(job_id, [images_input(images, datatype)], request_id="ours")

        response = result.get_response()
        assert response.id == "ours"
        assert response.model_version in {"1", "2", "3"}
        probabilities = result.as_numpy("probabilities")
        assert result.as_numpy("logits").argmax(axis=1).tolist() == [
            prediction.class_index for prediction in expected
        ]
        for row, prediction in zip(probabilities, expected, strict=True):
            scores = {score.class_index: score.probability for score in prediction.top_k}
            assert row.tolist() == pytest.approx([scores[index] for index in range(10)], abs=1e-5)


def test_classes_are_named(
    triton_client: triton.InferenceServerClient, job_id: str, inputs: list[triton.InferInput]
) -> None:
    outputs = [
        triton.InferRequestedOutput("probabilities", class_count=2),
        triton.InferRequestedOutput("logits"),
    ]

    result = triton_client.infer(job_id, inputs, outputs=outputs)

    named = result.as_numpy("probabilities")
    assert named.shape == (5, 2)
    best = result.as_numpy("logits").argmax(axis=1)
    for (first, _), index in zip(named, best, strict=True):
        value, number, label = first.decode().split(":")
        assert 0 < float(value) <= 1
        assert (int(number), label) == (index, CLASSES[index])


async def test_the_asynchronous_client_infers_and_streams(
    live_server: LiveServer, job_id: str, inputs: list[triton.InferInput]
) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(8):
            name = "nosuchmodel" if number == 3 else job_id
            yield {"model_name": name, "inputs": inputs, "request_id": str(number)}

    async with triton_aio.InferenceServerClient(live_server.target) as client:
        assert await client.is_server_ready()
        alone = await client.infer(job_id, inputs)
        streamed = [answer async for answer in client.stream_infer(requests())]

    assert [str(error) for _, error in streamed if error] == [str(streamed[3][1])]
    assert "nosuchmodel" in str(streamed[3][1])
    results = [result for result, error in streamed if error is None]
    assert [result.get_response().id for result in results] == list("0124567")
    for result in results:
        assert result.as_numpy("logits") == pytest.approx(alone.as_numpy("logits"), abs=1e-4)


def test_callbacks_get_a_stream_in_order(
    triton_client: triton.InferenceServerClient, job_id: str, inputs: list[triton.InferInput]
) -> None:
    answers: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
    triton_client.start_stream(callback=lambda result, error: answers.put((result, error)))

    for number in range(20):
        name = "nosuchmodel" if number == 7 else job_id
        triton_client.async_stream_infer(
            name, inputs, request_id=str(number), enable_empty_final_response=True
        )
    received = [answers.get(timeout=30) for _ in range(20)]
    triton_client.stop_stream()

    assert [bool(error) for _, error in received] == [number == 7 for number in range(20)]
    responses = [result.get_response() for result, error in received if not error]
    assert [response.id for response in responses] == [
        str(number) for number in range(20) if number != 7
    ]
    assert all(response.parameters["triton_final_response"].bool_param for response in responses)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_taken(
    triton_client: triton.InferenceServerClient,
    job_id: str,
    inputs: list[triton.InferInput],
    algorithm: str,
) -> None:
    result = triton_client.infer(job_id, inputs, compression_algorithm=algorithm)

    assert result.as_numpy("logits").shape == (5, 10)


def test_callbacks_get_single_answers(
    triton_client: triton.InferenceServerClient, job_id: str, inputs: list[triton.InferInput]
) -> None:
    answers: SimpleQueue[tuple[Any, Any]] = SimpleQueue()

    triton_client.async_infer(
        job_id, inputs, callback=lambda result, error: answers.put((result, error))
    )

    result, error = answers.get(timeout=30)
    assert error is None
    assert result.as_numpy("probabilities").sum(axis=1) == pytest.approx(np.ones(5), abs=1e-5)


def test_the_repository_and_the_statistics_are_described(
    triton_client: triton.InferenceServerClient, job_id: str, inputs: list[triton.InferInput]
) -> None:
    triton_client.load_model(job_id)
    triton_client.infer(job_id, inputs, model_version="3")
    triton_client.unload_model(job_id)

    index = triton_client.get_model_repository_index().models
    assert {(job_id, "READY")} <= {(entry.name, entry.state) for entry in index}
    (statistics,) = triton_client.get_inference_statistics(job_id, "3").model_stats
    assert statistics.inference_count >= 5
    assert statistics.inference_stats.success.ns > 0


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("SystemSharedMemoryStatus", lambda one: one.get_system_shared_memory_status()),
        ("SystemSharedMemoryRegister", lambda one: one.register_system_shared_memory("x", "/x", 8)),
        ("SystemSharedMemoryUnregister", lambda one: one.unregister_system_shared_memory()),
        ("CudaSharedMemoryStatus", lambda one: one.get_cuda_shared_memory_status()),
        (
            "CudaSharedMemoryRegister",
            lambda one: one.register_cuda_shared_memory("x", b"eA==", 0, 8),
        ),
        ("CudaSharedMemoryUnregister", lambda one: one.unregister_cuda_shared_memory()),
        ("TraceSetting", lambda one: one.get_trace_settings()),
        ("LogSettings", lambda one: one.update_log_settings({"log_info": True})),
        ("parameters config", lambda one: one.load_model(VARIANT, config="{}")),
    ],
)
def test_what_is_not_supported_says_so_with_a_reason(
    triton_client: triton.InferenceServerClient, job_id: str, name: str, call: Any
) -> None:
    assert job_id
    with pytest.raises(InferenceServerException) as caught:
        call(triton_client)

    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    assert name in caught.value.message()
    assert "support" in caught.value.message()


def test_tensors_in_shared_memory_are_refused(
    triton_client: triton.InferenceServerClient, job_id: str, inputs: list[triton.InferInput]
) -> None:
    elsewhere = triton.InferInput("images", [1, 32, 32, 3], "UINT8")
    elsewhere.set_shared_memory("region", 3072)
    output = triton.InferRequestedOutput("logits")
    output.set_shared_memory("region", 40)

    for options in ({"inputs": [elsewhere]}, {"inputs": inputs, "outputs": [output]}):
        with pytest.raises(InferenceServerException, match="shared memory") as caught:
            triton_client.infer(job_id, **options)
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_errors_and_timeouts_reach_tritonclient(
    triton_client: triton.InferenceServerClient, job_id: str, inputs: list[triton.InferInput]
) -> None:
    for options, status in (
        ({"model_name": "nosuchmodel"}, "NOT_FOUND"),
        ({"model_name": job_id, "model_version": "99"}, "NOT_FOUND"),
        ({"model_name": job_id, "model_version": "new"}, "INVALID_ARGUMENT"),
        ({"model_name": job_id, "timeout": 1}, "DEADLINE_EXCEEDED"),
    ):
        with pytest.raises(InferenceServerException) as caught:
            triton_client.infer(inputs=inputs, **options)
        assert caught.value.status() == f"StatusCode.{status}"
    assert triton_client.infer(job_id, inputs, timeout=10_000_000, client_timeout=10)


@pytest.mark.parametrize("ours_first", [True, False])
def test_both_definitions_of_the_messages_live_in_one_process(*, ours_first: bool) -> None:
    imports = ["import leadline.server.api.server, leadline.client", "import tritonclient.grpc"]
    code = "; ".join(imports if ours_first else reversed(imports))

    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def messages(descriptor: Descriptor) -> Iterator[Descriptor]:
    yield descriptor
    for nested in descriptor.nested_types:
        yield from messages(nested)


def test_the_messages_equal_tritonclients_field_by_field() -> None:
    theirs = triton.service_pb2.DESCRIPTOR.pool
    ours = open_inference_pb2.DESCRIPTOR

    def plain(name: str) -> str:
        return name.replace("leadline.oip.v2.", "inference.")

    for message in ours.message_types_by_name.values():
        for one in messages(message):
            known = theirs.FindMessageTypeByName(plain(one.full_name)).fields_by_number
            for field in one.fields:
                same = known[field.number]
                assert same.name == field.name
                assert (same.type, same.is_repeated) == (field.type, field.is_repeated)
                if field.message_type:
                    assert same.message_type.full_name == plain(field.message_type.full_name)


def test_the_methods_equal_tritonclients() -> None:
    theirs = triton.service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    ours = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]

    assert {method.name for method in ours.methods} == {method.name for method in theirs.methods}
    for method in ours.methods:
        same = theirs.methods_by_name[method.name]
        assert (method.client_streaming, method.server_streaming) == (
            same.client_streaming,
            same.server_streaming,
        )
        if method.name not in UNSUPPORTED:
            assert method.input_type.name == same.input_type.name
            assert method.output_type.name == same.output_type.name
