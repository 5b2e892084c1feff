"""Errors of the Open Inference Protocol on the wire, with the project's own messages."""

from typing import Any

import grpc
import numpy as np
import pytest

from leadline.models.images import encode_png
from leadline.oip.v2 import open_inference_pb2 as oip
from support.open_inference import (
    OpenInference,
    raw_request,
    raw_strings,
    typed_request,
)
from support.wire import Stubs, reason, violations

VARIANT = "tiny-1-blocks-batch-norm"
Output = oip.ModelInferRequest.InferRequestedOutputTensor
Input = oip.ModelInferRequest.InferInputTensor


PIXELS = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3]}
RAW = [bytes(3072)]
TWO_FILES = {"name": "images", "datatype": "BYTES", "shape": [2]}
FILE = encode_png(np.zeros((32, 32, 3), np.uint8))
A_TYPED = oip.InferTensorContents(uint_contents=[1])


@pytest.mark.parametrize(
    ("inputs", "field", "says"),
    [
        (([], RAW), "inputs", "one input"),
        (([PIXELS, PIXELS], RAW * 2), "inputs", "one input"),
        (([{**PIXELS, "name": "x"}], RAW), "inputs[0].name", "images"),
        (([{**PIXELS, "datatype": "FP64"}], RAW), "inputs[0].datatype", "FP32, UINT8, BYTES"),
        (([PIXELS], RAW * 2), "raw_input_contents", "2 elements"),
        (([{**PIXELS, "contents": A_TYPED}], RAW), "inputs[0].contents", "only one"),
        (([{**PIXELS, "shape": []}], RAW), "inputs[0].shape", "[images, 32, 32, 3]"),
        (([{**PIXELS, "shape": [32, 32, 3]}], RAW), "inputs[0].shape", "[images, 32, 32, 3]"),
        (([{**PIXELS, "shape": [0, 32, 32, 3]}], [b""]), "inputs[0].shape", "no image"),
        (([{**PIXELS, "shape": [-1, 32, 32, 3]}], RAW), "inputs[0].shape", "no image"),
        (([{**PIXELS, "shape": [2**62, 32, 32, 3]}], RAW), "inputs[0].shape", "4096"),
        (([PIXELS], [bytes(3071)]), "raw_input_contents[0]", "3071 bytes"),
        (([{**PIXELS, "contents": A_TYPED}], []), "inputs[0].contents.uint_contents", "1 bytes"),
        (([PIXELS], []), "inputs[0].contents.uint_contents", "0 bytes"),
        (([TWO_FILES], [raw_strings([FILE])]), "raw_input_contents[0]", "element 1 of 2"),
        (([TWO_FILES], [raw_strings([FILE] * 3)]), "raw_input_contents[0]", "behind its 2"),
        (([TWO_FILES], [raw_strings([FILE, b"no"])]), "raw_input_contents[0][1]", "PNG"),
        (([TWO_FILES], [b"\xff" * 8]), "raw_input_contents[0]", "element 0 of 2"),
        (([TWO_FILES], []), "inputs[0].contents.bytes_contents", "0 elements"),
        (([{**TWO_FILES, "shape": [2, 2]}], [b""]), "inputs[0].shape", "[images, 1]"),
        (([{**TWO_FILES, "shape": []}], [b""]), "inputs[0].shape", "[images, 1]"),
        (([{**TWO_FILES, "shape": [5000]}], [b""]), "inputs[0].shape", "4096"),
    ],
)
def test_wrong_inputs_are_refused_by_their_field(
    client: OpenInference,
    job_id: str,
    inputs: tuple[list[dict[str, Any]], list[bytes]],
    field: str,
    says: str,
) -> None:
    tensors, raw = inputs
    request = oip.ModelInferRequest(
        model_name=job_id, inputs=[Input(**tensor) for tensor in tensors], raw_input_contents=raw
    )

    error = client.refused(request)

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    refused = violations(error)
    assert list(refused) == [field]
    assert says in refused[field]


def test_typed_contents_must_fit_their_type(client: OpenInference, job_id: str) -> None:
    for contents, datatype, shape, field in (
        ({"uint_contents": [256] * 3072}, "UINT8", [1, 32, 32, 3], "uint_contents"),
        ({"fp32_contents": [float("nan")] * 3072}, "FP32", [1, 3, 32, 32], "fp32_contents"),
        ({"bytes_contents": [FILE, b"no"]}, "BYTES", [2], "bytes_contents[1]"),
        ({"fp32_contents": [0.0] * 3072}, "UINT8", [1, 32, 32, 3], "uint_contents"),
    ):
        error = client.refused(typed_request(job_id, datatype, shape, **contents))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert list(violations(error)) == [f"inputs[0].contents.{field}"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"outputs": [Output(name="labels")]}, "outputs[0].name"),
        ({"outputs": [Output(name="logits")] * 2}, "outputs"),
        (
            {
                "outputs": [
                    Output(
                        name="logits",
                        parameters={"classification": oip.InferParameter(int64_param=-1)},
                    )
                ]
            },
            "outputs[0].parameters[classification]",
        ),
        ({"parameters": {"timeout": oip.InferParameter(int64_param=-1)}}, "parameters[timeout]"),
        ({"parameters": {"timeout": oip.InferParameter(bool_param=True)}}, "parameters[timeout]"),
        ({"model_version": "latest"}, "model_version"),
        ({"model_version": "0"}, "model_version"),
        ({"model_version": "-1"}, "model_version"),
    ],
)
def test_wrong_outputs_are_refused_by_their_field(
    client: OpenInference, job_id: str, noise: np.ndarray, fields: dict[str, Any], field: str
) -> None:
    error = client.refused(raw_request(job_id, "UINT8", noise, **fields))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert list(violations(error)) == [field]


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (("nosuchmodel", ""), "MODEL_NOT_FOUND"),
        (("Not A Name", ""), "MODEL_NOT_FOUND"),
        (("", ""), "MODEL_NOT_FOUND"),
        (("x" * 100_000, ""), "MODEL_NOT_FOUND"),
        (("tiny-33-blocks", ""), "VARIANT_NOT_FOUND"),
        ((VARIANT, "999"), "EPOCH_NOT_FOUND"),
    ],
)
def test_a_missing_model_is_not_found_and_not_ready(
    client: OpenInference,
    job_id: str,
    noise: np.ndarray,
    named: tuple[str, str],
    says: str,
) -> None:
    assert job_id
    name, version = named
    error = client.refused(raw_request(name, "UINT8", noise, model_version=version))
    ready = client.call("ModelReady", oip.ModelReadyRequest(name=name, version=version))

    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert reason(error) == says
    assert not ready.ready


def test_a_message_above_the_limit_is_refused_with_the_limit(
    client: OpenInference, job_id: str
) -> None:
    request = raw_request(job_id, "BYTES", [bytes(65 << 20)])

    error = client.refused(request)

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(64 << 20) in (error.details() or "")


def test_a_malformed_message_is_refused(stubs: Stubs) -> None:
    invoke: Any = stubs.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    with pytest.raises(grpc.RpcError) as caught:
        invoke(b"\xff\xff\xff", timeout=10)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
