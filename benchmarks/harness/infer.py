"""Calls of ModelInfer of the Open Inference Protocol, which all servers here implement."""

import grpc
import numpy as np
from numpy.typing import NDArray

from leadline.oip.v2.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelReadyRequest,
    ModelReadyResponse,
)

# The service's name on the wire; the package of a generated stub may differ.
_SERVICE = "/inference.GRPCInferenceService"
MODEL_INFER = f"{_SERVICE}/ModelInfer"

INPUT = "images"
OUTPUT = "logits"

# Some messages exceed gRPC's default limit of 4 MiB.
_CHANNEL_OPTIONS = [("grpc.max_receive_message_length", -1)]

Images = NDArray[np.float32] | NDArray[np.uint8]
Logits = NDArray[np.float32]


def request(model: str, images: Images) -> bytes:
    """Returns a serialized request for the logits of images.

    Args:
        model: the name of the model.
        images: normalized float32 [images, 3, 32, 32], or uint8 [images, 32, 32, 3].
    """
    message = ModelInferRequest(model_name=model)
    tensor = message.inputs.add()
    tensor.name = INPUT
    tensor.datatype = "UINT8" if images.dtype == np.uint8 else "FP32"
    tensor.shape.extend(images.shape)
    message.outputs.add().name = OUTPUT
    message.raw_input_contents.append(images.tobytes())
    return message.SerializeToString()


def logits(answer: bytes) -> Logits:
    """Returns the logits of a serialized response, float32 [images, classes].

    Raises:
        ValueError, DecodeError: the response does not have logits.
    """
    response = ModelInferResponse.FromString(answer)
    if [output.name for output in response.outputs] != [OUTPUT]:
        raise ValueError(
            f"the answer has the outputs {[output.name for output in response.outputs]}"
        )
    output = response.outputs[0]
    if response.raw_output_contents:
        flat = np.frombuffer(response.raw_output_contents[0], dtype="<f4")
    else:
        flat = np.array(output.contents.fp32_contents, dtype=np.float32)
    return flat.reshape(output.shape)


def open_channel(target: str) -> grpc.Channel:
    """Returns a channel with a separate connection."""
    # By default, gRPC shares connections between channels with the same options.
    return grpc.insecure_channel(
        target, options=[*_CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    )


def infer(channel: grpc.Channel, message: bytes, *, timeout: float = 30.0) -> bytes:
    """Sends a serialized request, and returns the serialized response.

    Raises:
        grpc.RpcError: the status is not OK.
    """
    method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
    return method(message, timeout=timeout)


def is_ready(target: str, model: str) -> bool:
    """Whether a model is ready; False if the server does not respond."""
    with open_channel(target) as channel:
        call = channel.unary_unary(
            f"{_SERVICE}/ModelReady",
            request_serializer=ModelReadyRequest.SerializeToString,
            response_deserializer=ModelReadyResponse.FromString,
        )
        try:
            return bool(call(ModelReadyRequest(name=model), timeout=5).ready)
        except grpc.RpcError:
            return False
