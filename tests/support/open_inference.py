"""A client of the Open Inference Protocol, with the project's own messages."""

from collections.abc import Iterable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import message_factory

from leadline.oip.v2 import open_inference_pb2 as oip

_SERVICE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]


class OpenInference:
    """Calls every method by its name on the wire."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def call(self, name: str, request: Any, *, timeout: float = 10) -> Any:
        """Makes a unary call."""
        answer = message_factory.GetMessageClass(_SERVICE.methods_by_name[name].output_type)
        invoke: Any = self._channel.unary_unary(
            f"/inference.GRPCInferenceService/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return invoke(request, timeout=timeout)

    def infer(self, request: oip.ModelInferRequest, **options: Any) -> oip.ModelInferResponse:
        """Calls ModelInfer."""
        response: oip.ModelInferResponse = self.call("ModelInfer", request, **options)
        return response

    def refused(self, request: oip.ModelInferRequest) -> grpc.RpcError:
        """Calls ModelInfer, which must fail, and returns the error."""
        with pytest.raises(grpc.RpcError) as caught:
            self.infer(request)
        return caught.value

    def stream(
        self, requests: Iterable[oip.ModelInferRequest], *, metadata: Any = None
    ) -> Iterator[oip.ModelStreamInferResponse]:
        """Calls ModelStreamInfer."""
        invoke = self._channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=oip.ModelInferRequest.SerializeToString,
            response_deserializer=oip.ModelStreamInferResponse.FromString,
        )
        return iter(invoke(iter(requests), timeout=30, metadata=metadata))


def raw_request(model: str, datatype: str, images: Any, **fields: Any) -> oip.ModelInferRequest:
    """Returns a request with raw contents: an array of pixels, or a list of files."""
    if isinstance(images, np.ndarray):
        shape, data = list(images.shape), images.tobytes()
    else:
        shape, data = [len(images)], raw_strings(images)
    tensor = oip.ModelInferRequest.InferInputTensor(name="images", datatype=datatype, shape=shape)
    return oip.ModelInferRequest(
        model_name=model, inputs=[tensor], raw_input_contents=[data], **fields
    )


def typed_request(
    model: str, datatype: str, shape: Iterable[int], **contents: Any
) -> oip.ModelInferRequest:
    """Returns a request with typed contents."""
    tensor = oip.ModelInferRequest.InferInputTensor(
        name="images",
        datatype=datatype,
        shape=shape,
        contents=oip.InferTensorContents(**contents),
    )
    return oip.ModelInferRequest(model_name=model, inputs=[tensor])


def raw_strings(strings: Iterable[bytes]) -> bytes:
    """Returns strings as raw contents, each after its length."""
    return b"".join(len(string).to_bytes(4, "little") + string for string in strings)


def strings_in(data: bytes) -> list[bytes]:
    """Returns the strings in raw contents."""
    strings = []
    while data:
        end = 4 + int.from_bytes(data[:4], "little")
        strings.append(data[4:end])
        data = data[end:]
    return strings


def floats_in(response: oip.ModelInferResponse, name: str) -> np.ndarray:
    """Returns an output of FP32 in its shape."""
    (index,) = [index for index, output in enumerate(response.outputs) if output.name == name]
    output = response.outputs[index]
    assert output.datatype == "FP32"
    data = response.raw_output_contents[index]
    return np.frombuffer(data, "<f4").reshape(tuple(output.shape))


def normalised(pixels: np.ndarray) -> np.ndarray:
    """Returns the input for FP32, [images, 3, 32, 32], from uint8 [images, 32, 32, 3]."""
    return (pixels.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2).copy()
