"""The straight path of common requests answers as the general path does."""

from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadline.oip.v2.open_inference_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
)
from leadline.server.api.oip.requests import parse
from support.open_inference import OpenInference

_SHAPES = {"FP32": [1, 3, 32, 32], "UINT8": [1, 32, 32, 3]}
_CLASSES = {"classification": InferParameter(int64_param=2)}

# Later than any deadline, so it has no effect. Only the general path handles the parameter.
_GENERAL = {"timeout": InferParameter(int64_param=10**9)}


def test_common_requests_take_the_straight_path(job_id: str) -> None:
    for outputs in ([], ["logits"], ["probabilities", "logits"]):
        request = _request(job_id, "FP32", 2, outputs=[{"name": name} for name in outputs])
        assert _takes_the_straight_path(request)
        request.parameters["timeout"].CopyFrom(_GENERAL["timeout"])
        assert not _takes_the_straight_path(request)


@st.composite
def _requests(draw: st.DrawFn) -> dict[str, Any]:
    """Requests, some of which are invalid; the model's name is missing."""
    seldom = st.integers(0, 7).map(lambda number: not number)
    datatype = draw(st.sampled_from(["FP32", "FP32", "UINT8", "BYTES"]))
    request: dict[str, Any] = {
        "datatype": datatype,
        "images": draw(st.integers(0, 9)),
        "outputs": draw(
            st.lists(
                st.fixed_dictionaries(
                    {"name": st.sampled_from(["logits", "probabilities", "logits", "x"])},
                    optional={"parameters": st.sampled_from([{}, _CLASSES])},
                ),
                max_size=2,
            )
        ),
        "id": draw(st.text(max_size=2)),
        "seed": draw(st.integers(0, 9)),
    }
    if draw(seldom):
        request["value"] = draw(st.floats(width=32))
    if draw(seldom):
        request["shape"] = draw(st.lists(st.sampled_from([-1, 0, 1, 3, 32]), max_size=5))
    if draw(seldom):
        request["cut"] = draw(st.integers(1, 4))
    if draw(seldom):
        request["name"] = "x"
    if draw(seldom):
        request["copies"] = draw(st.sampled_from([0, 2]))
    if draw(seldom):
        request["version"] = draw(st.sampled_from(["1", "9", "x"]))
    if draw(seldom):
        request["contents"] = InferTensorContents(uint_contents=[1])
    return request


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(request=_requests(), prefix=st.sampled_from(["", "models/", "no"]))
def test_both_paths_answer_alike(
    client: OpenInference, job_id: str, request: dict[str, Any], prefix: str
) -> None:
    common = _request(prefix + job_id, **request)
    general = ModelInferRequest()
    general.CopyFrom(common)
    general.parameters["timeout"].CopyFrom(_GENERAL["timeout"])

    assert not _takes_the_straight_path(general)
    assert _outcome(client, common) == _outcome(client, general)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.finfo(np.float32).max])
@pytest.mark.parametrize("images", [1, 2])
def test_only_finite_numbers_are_classified(
    client: OpenInference, job_id: str, value: float, images: int
) -> None:
    request = _request(job_id, "FP32", images, value=value)

    assert _takes_the_straight_path(request)
    assert isinstance(_outcome(client, request), bytes) == np.isfinite(value)


def _request(
    model: str,
    datatype: str,
    images: int,
    *,
    shape: list[int] | None = None,
    outputs: Any = (),
    value: float | None = None,
    cut: int = 0,
    name: str = "images",
    copies: int = 1,
    version: str = "",
    contents: InferTensorContents | None = None,
    id: str = "",  # noqa: A002 - the field's name
    seed: int = 0,
) -> ModelInferRequest:
    sides = _SHAPES.get(datatype, [1])
    if datatype == "FP32":
        pixels = np.random.default_rng(seed).standard_normal((images, 3, 32, 32), np.float32)
    else:
        pixels = np.random.default_rng(seed).integers(0, 256, (images, 32, 32, 3), np.uint8)
    if value is not None and datatype == "FP32" and images:
        pixels[-1, -1, 5, 5] = value
    data = pixels.tobytes()
    tensor = ModelInferRequest.InferInputTensor(
        name=name,
        datatype=datatype,
        shape=shape if shape is not None else [images, *sides[1:]],
        contents=contents,
    )
    return ModelInferRequest(
        model_name=model,
        model_version=version,
        id=id,
        inputs=[tensor],
        outputs=[ModelInferRequest.InferRequestedOutputTensor(**output) for output in outputs],
        raw_input_contents=[data[: len(data) - cut]] * copies,
    )


def _takes_the_straight_path(request: ModelInferRequest) -> bool:
    return parse(request.SerializeToString()).header.straight is not None


def _outcome(client: OpenInference, request: ModelInferRequest) -> object:
    try:
        return client.infer(request).SerializeToString(deterministic=True)
    except grpc.RpcError as error:
        return error.code(), error.details()
