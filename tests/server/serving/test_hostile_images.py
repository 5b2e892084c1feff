"""Slow images delay no other callers, and stop when their caller disconnects."""

import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from leadline.models.images import encode_png
from leadline.v1.inference_service_pb2 import EncodedImages, PredictRequest
from leadline.v1.training_service_pb2 import TrainJobRequest
from support.datasets import specs_of
from support.hostile_images import one_bit_png, progressive_jpeg_of_bytes, rgba_png
from support.servers import LiveServer, ServerFactory
from support.wire import Stubs, connect, reason, violations

tiny_spec = specs_of(__file__)

# A request needs five seconds or more of a core.
_LARGEST = [rgba_png()] * 16
_PIXELS = 16 * 4096 * 4096
_ATTACKERS = 4


@pytest.fixture(scope="module")
def stubs(live_server: LiveServer) -> Iterator[Stubs]:
    stubs = connect(live_server.target)
    yield stubs
    stubs.channel.close()


@pytest.fixture(scope="module")
def model(stubs: Stubs) -> str:
    return _train(stubs)


def _train(stubs: Stubs) -> str:
    spec = tiny_spec(blocks=0, epochs=1, batch_size=200)
    *_, last = stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=60)
    return str(last.finished.model)


def _request(model: str, files: list[bytes]) -> PredictRequest:
    return PredictRequest(model=model, encoded=EncodedImages(images=files))


@contextmanager
def _attack(server: LiveServer, model: str) -> Iterator[list[Any]]:
    """Keeps calls of several callers in flight, and cancels them at the end."""
    with ExitStack() as stack:
        calls = []
        for _ in range(_ATTACKERS):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(grpc.insecure_channel(server.target, options))
            stubs = Stubs(channel)
            calls.append(stubs.inference.Predict.future(_request(model, _LARGEST), timeout=120))
        # More pixels than all requests except one: the last one is also in the queue.
        most = (_ATTACKERS - 1) * _PIXELS
        _wait_for(lambda: _metric(server, "leadline_decoding_queue_pixels") > most)
        yield calls
        for call in calls:
            call.cancel()


def _metric(server: LiveServer, name: str) -> float:
    with urllib.request.urlopen(server.metrics_url, timeout=30) as response:  # noqa: S310
        found = re.search(rf"^{name} (\S+)$", response.read().decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])


def _wait_for(holds: Any) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_idle(server: LiveServer) -> bool:
    process = psutil.Process(server.process.pid)
    before = process.cpu_times().user
    time.sleep(0.5)
    return process.cpu_times().user - before < 0.2


def test_others_are_answered_meanwhile_and_abandoned_decoding_stops(
    live_server: LiveServer, stubs: Stubs, model: str
) -> None:
    abandoned = "leadline_decoding_abandoned_total"
    before = _metric(live_server, abandoned)
    small = _request(model, [encode_png(image) for image in _noise(4)])
    longest = 0.0

    with _attack(live_server, model) as calls:
        for _ in range(20):
            began = time.monotonic()
            assert len(stubs.inference.Predict(small, timeout=60).predictions) == 4
            longest = max(longest, time.monotonic() - began)
        assert not all(call.done() for call in calls)

    assert longest < 2
    _wait_for(lambda: _metric(live_server, abandoned) >= before + 1)
    _wait_for(lambda: _metric(live_server, "leadline_decoding_queue_pixels") == 0)
    _wait_for(lambda: _is_idle(live_server))


def test_sigterm_does_not_wait_for_what_nobody_waits_for(server_factory: ServerFactory) -> None:
    server = server_factory("--spare-workers=0")
    stubs = connect(server.target)
    with _attack(server, _train(stubs)):
        stubs.channel.close()
    began = time.monotonic()
    assert server.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 6


@pytest.mark.parametrize(
    ("files", "field", "says"),
    [
        ([one_bit_png()] * 17, "encoded.images", "up to image 16, .* 268,435,456: send image 16"),
        ([progressive_jpeg_of_bytes(1 << 17)], "encoded.images[0]", "more than 100 scans"),
        ([progressive_jpeg_of_bytes(1 << 24)], "encoded.images[0]", "more than 100 scans"),
        ([one_bit_png(4_097)], "encoded.images[0]", "at most 16,777,216 are allowed"),
    ],
)
def test_what_is_too_much_is_refused_undecoded(
    stubs: Stubs, model: str, files: list[bytes], field: str, says: str
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stubs.inference.Predict(_request(model, files), timeout=60)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert re.search(says, violations(refused.value)[field])


def test_what_has_no_room_is_refused_with_when_to_come_again(
    live_server: LiveServer, stubs: Stubs, model: str
) -> None:
    with _attack(live_server, model), pytest.raises(grpc.RpcError) as refused:
        stubs.inference.Predict(_request(model, _LARGEST), timeout=60)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason(refused.value) == "DECODING_QUEUE_FULL"


def _noise(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
