"""Responses of the Open Inference Protocol, always with raw contents."""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leadline.oip.v2.open_inference_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from leadline.server.api import wire
from leadline.server.api.oip.inputs import parameter_number, refuse_shared_memory
from leadline.server.errors import InvalidArgumentError
from leadline.server.serving.catalog import CheckpointRef
from leadline.server.serving.classifier import Scores

OUTPUTS = ("probabilities", "logits")

_CLASSIFICATION = "classification"

# Ends each response in a stream: each request has exactly one response.
_FINAL = ModelInferResponse(
    parameters={"triton_final_response": InferParameter(bool_param=True)}
).SerializeToString()


class RequestedOutput(NamedTuple):
    """An output that a request names.

    Attributes:
        name: one of `OUTPUTS`.
        classes: how many of the most probable classes to return, as strings;
            0 for the numbers of all classes.
    """

    name: str
    classes: int = 0


_ALL = tuple(RequestedOutput(name) for name in OUTPUTS)
# The most common requests: one output, without parameters.
_SINGLE = {name: (RequestedOutput(name),) for name in OUTPUTS}


def requested_outputs(request: ModelInferRequest) -> tuple[RequestedOutput, ...]:
    """The outputs that a request names, in its order; all if it names none.

    Raises:
        InvalidArgumentError: an output does not exist, or is repeated.
        UnimplementedError: an output refers to shared memory.
    """
    outputs = request.outputs
    if not outputs:
        return _ALL
    first = outputs[0]
    if len(outputs) == 1 and first.name in _SINGLE and not first.parameters:
        return _SINGLE[first.name]
    requested = tuple(
        _requested(index, output) for index, output in enumerate(outputs[: len(OUTPUTS)])
    )
    if len({output.name for output in requested}) < len(outputs):
        raise InvalidArgumentError.of("outputs", "names an output twice: name it once")
    return requested


def response(
    request: ModelInferRequest,
    checkpoint: CheckpointRef,
    outputs: tuple[RequestedOutput, ...],
    scores: Scores,
) -> bytes:
    """The serialized ModelInferResponse to a request."""
    contents = []
    for output in outputs:
        values = scores.logits if output.name == "logits" else scores.probabilities
        contents.append(
            _best_classes(values, scores, output.classes, checkpoint.model.started.class_names)
            if output.classes
            else values.tobytes()
        )
    # Messages are merged by joining their bytes.
    return (
        _without_contents(
            request.model_name,
            checkpoint.name,
            checkpoint.epoch.weights_sha256,
            outputs,
            scores.logits.shape,
        )
        + ModelInferResponse(id=request.id, raw_output_contents=contents).SerializeToString()
    )


def in_stream(response: bytes) -> bytes:
    """A response as a serialized ModelStreamInferResponse."""
    prefix = wire.field_prefix(
        ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER, len(response) + len(_FINAL)
    )
    return prefix + response + _FINAL


def _requested(
    index: int, requested: ModelInferRequest.InferRequestedOutputTensor
) -> RequestedOutput:
    field = f"outputs[{index}]"
    if requested.name not in OUTPUTS:
        raise InvalidArgumentError.of(
            f"{field}.name", f"is {requested.name!r}, but models have {' and '.join(OUTPUTS)}"
        )
    parameters = requested.parameters
    if not parameters:
        return RequestedOutput(requested.name)
    refuse_shared_memory(field, parameters)
    if _CLASSIFICATION not in parameters:
        return RequestedOutput(requested.name)
    return RequestedOutput(
        requested.name, parameter_number(parameters, _CLASSIFICATION, f"{field}.parameters")
    )


@functools.lru_cache(maxsize=1_024)
def _without_contents(
    model_name: str,
    checkpoint: str,
    weights_sha256: str,
    outputs: tuple[RequestedOutput, ...],
    shape: tuple[int, int],
) -> bytes:
    images, classes = shape
    return ModelInferResponse(
        model_name=model_name,
        model_version=checkpoint.rpartition("/")[2],
        parameters={
            "model": InferParameter(string_param=checkpoint),
            "weights_sha256": InferParameter(string_param=weights_sha256),
        },
        outputs=[
            ModelInferResponse.InferOutputTensor(
                name=output.name,
                datatype="BYTES" if output.classes else "FP32",
                shape=[images, min(output.classes or classes, classes)],
            )
            for output in outputs
        ],
    ).SerializeToString()


def _best_classes(
    values: NDArray[np.float32], scores: Scores, classes: int, names: tuple[str, ...]
) -> bytes:
    # By the logits, like Predict: among equal logits, the lower index comes first.
    order = np.argsort(-scores.logits, axis=1, kind="stable")[:, :classes]
    ranked = np.take_along_axis(values, order, axis=1)
    return _raw_strings(
        f"{value}:{index}:{names[index]}".encode()
        for row, indices in zip(ranked, order, strict=True)
        for value, index in zip(row, indices, strict=True)
    )


def _raw_strings(strings: Iterable[bytes]) -> bytes:
    return b"".join(len(string).to_bytes(4, "little") + string for string in strings)
