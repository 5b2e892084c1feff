"""ModelInfer of the Open Inference Protocol, as every server here is asked it."""

import grpc
import numpy as np
from numpy.typing import NDArray

from leadline.oip.v2.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelReadyRequest,
    ModelReadyResponse,
)

# What the wire calls the service, whatever a generated stub's package is.
_SERVICE = "/inference.GRPCInferenceService"
MODEL_INFER = f"{_SERVICE}/ModelInfer"

INPUT = "images"
OUTPUT = "logits"

# Some requests and answers are larger than the 4 MiB that gRPC takes unasked.
_CHANNEL_OPTIONS = [("grpc.max_receive_message_length", -1)]

Images = NDArray[np.float32] | NDArray[np.uint8]
Logits = NDArray[np.float32]


def request(model: str, images: Images) -> bytes:
    """A request for the logits of images, serialised.

    Args:
        model: its name.
        images: normalised float32 [images, 3, 32, 32], or uint8 [images, 32, 32, 3].
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
    """The logits of a serialised answer, float32 [images, classes].

    Raises:
        ValueError, DecodeError: the answer holds something else.
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
    """A channel of its own connection."""
    # Channels of equal options share connections, unless they are told not to.
    return grpc.insecure_channel(
        target, options=[*_CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    )


def infer(channel: grpc.Channel, message: bytes, *, timeout: float = 30.0) -> bytes:
    """Sends a serialised request; returns the serialised answer.

    Raises:
        grpc.RpcError: the status is another than OK.
    """
    method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
    return method(message, timeout=timeout)


def is_ready(target: str, model: str) -> bool:
    """Whether a server says that a model is ready; False where there is no server yet."""
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
