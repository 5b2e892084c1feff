"""Calls of Leadline's own `Predict`, and a server for it that may use every core."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from harness.infer import open_channel
from harness.leadline import LeadlineServer
from harness.models import Trained
from leadline.v1.inference_service_pb2 import (
    DATA_TYPE_UINT8,
    PredictRequest,
    PredictResponse,
    Tensor,
)

_METHOD = "/leadline.v1.InferenceService/Predict"

Pixels = NDArray[np.uint8]


def draw_pixels(count: int) -> Pixels:
    """Returns noise, uint8 [count, 32, 32, 3]."""
    return np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def expected_classes(trained: Trained, pixels: Pixels) -> list[int]:
    """Returns the class of each image that the network predicts in torch."""
    images = pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - np.float32(1)
    return [int(index) for index in trained.logits(np.ascontiguousarray(images)).argmax(axis=1)]


def classes(answer: PredictResponse) -> list[int]:
    """Returns the predicted class of each image in a response."""
    return [prediction.class_index for prediction in answer.predictions]


def caller(
    channel: grpc.Channel, trained: Trained, pixels: Pixels, *, timeout: float
) -> Callable[[], Any]:
    """Returns a function that starts a call with all of the pixels, and returns its future."""
    request = PredictRequest(
        model=f"models/{trained.job_id}/epochs/{trained.epoch}",
        tensor=Tensor(data_type=DATA_TYPE_UINT8, shape=pixels.shape, data=pixels.tobytes()),
    )
    method: grpc.UnaryUnaryMultiCallable[bytes, PredictResponse] = channel.unary_unary(
        _METHOD, response_deserializer=PredictResponse.FromString
    )
    message = request.SerializeToString()
    return lambda: method.future(message, timeout=timeout)


@contextmanager
def unpinned_leadline(
    trained: Trained, *flags: str
) -> Iterator[tuple[LeadlineServer, grpc.Channel]]:
    """Yields a server that may use all cores, and a channel to it."""
    with tempfile.TemporaryDirectory(prefix="leadline-server-") as folder:
        own = Path(folder) / "leadline"
        server = LeadlineServer("leadline", trained, own, core=None, flags=flags)
        try:
            server.wait_ready()
            with open_channel(server.target) as channel:
                yield server, channel
        finally:
            server.stop()
