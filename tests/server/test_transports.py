"""Callers see the same behaviour of the services on each transport."""

import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from faults.metrics import calls_by_code
from leadline.v1.inference_service_pb2 import EncodedImages, PredictRequest
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.training_service_pb2 import (
    GetJobRequest,
    ListJobsRequest,
    TrainJobRequest,
    WatchJobRequest,
)
from support import http2_frames as http2
from support.servers import LiveServer, start_server
from support.wire import Stubs, connect, kind_and_sequence, reason, tiny_spec, violations

pytestmark = pytest.mark.system

_MESSAGE_BYTES = 1 << 20


@pytest.fixture(scope="module", params=["h2corn", "grpcio"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_dataset: Path,
) -> Iterator[LiveServer]:
    server = start_server(
        tmp_path_factory.mktemp(request.param),
        *(f"--transport={request.param}", f"--dataset=tiny={tiny_dataset}"),
        f"--max-message-bytes={_MESSAGE_BYTES}",
    )
    yield server
    assert server.stop() == 0, server.log.read_text()


@pytest.fixture(scope="module")
def stubs(server: LiveServer) -> Iterator[Stubs]:
    stubs = connect(server.target)
    yield stubs
    stubs.channel.close()


@pytest.fixture(scope="module")
def trained(stubs: Stubs) -> list[JobEvent]:
    return list(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec()), timeout=60))


def test_a_job_is_followed_again_from_any_event(stubs: Stubs, trained: list[JobEvent]) -> None:
    request = WatchJobRequest(name=trained[0].job, after_sequence=2)

    again = list(stubs.training.WatchJob(request, timeout=10))

    told = kind_and_sequence(trained)
    assert [sequence for _, sequence in told] == list(range(1, len(told) + 1))
    assert kind_and_sequence(again) == told[2:]


@pytest.mark.parametrize("compression", list(grpc.Compression))
def test_images_are_classified_however_the_request_is_compressed(
    stubs: Stubs, trained: list[JobEvent], tiny_dataset: Path, compression: grpc.Compression
) -> None:
    image = (tiny_dataset / "test" / "ant" / "0000.png").read_bytes()
    request = PredictRequest(
        model=trained[-1].finished.model, encoded=EncodedImages(images=[image])
    )

    answer = stubs.inference.Predict(request, timeout=10, compression=compression)

    assert len(answer.predictions) == 1


def test_errors_have_their_details(stubs: Stubs) -> None:
    with pytest.raises(grpc.RpcError) as wrong:
        list(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=-1)), timeout=10))
    with pytest.raises(grpc.RpcError) as missing:
        stubs.training.GetJob(GetJobRequest(name="jobs/aaaaaaaaaa"), timeout=10)

    assert wrong.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert set(violations(wrong.value)) == {"spec.epochs"}
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND
    assert reason(missing.value) == "JOB_NOT_FOUND"


def test_a_message_above_the_limit_is_refused(stubs: Stubs) -> None:
    images = EncodedImages(images=[bytes(_MESSAGE_BYTES)])

    with pytest.raises(grpc.RpcError, match="larger than max") as caught:
        stubs.inference.Predict(PredictRequest(encoded=images), timeout=10)

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("messages", [0, 2])
def test_a_unary_method_takes_one_message(stubs: Stubs, messages: int) -> None:
    ask: Any = stubs.channel.stream_unary("/leadline.v1.TrainingService/ListJobs")

    with pytest.raises(grpc.RpcError, match="one message") as caught:
        ask(iter([b""] * messages), timeout=10)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_who_goes_within_a_message_is_counted_as_gone(server: LiveServer) -> None:
    before = calls_by_code(server.metrics_url, "ListJobs")
    with socket.create_connection(("127.0.0.1", int(server.target.split(":")[1]))) as caller:
        caller.sendall(http2.PREFACE + http2.settings())
        path = "/leadline.v1.TrainingService/ListJobs"
        caller.sendall(http2.headers(1, path) + http2.message_begin(1, 200))
        time.sleep(0.2)
        caller.sendall(http2.reset(1))

        for _ in range(100):
            seen = calls_by_code(server.metrics_url, "ListJobs") - before
            if seen:
                break
            time.sleep(0.05)

    assert seen == Counter({"Canceled": 1})


def test_a_request_of_another_type_is_refused(stubs: Stubs) -> None:
    ask: Any = stubs.channel.unary_unary("/leadline.v1.TrainingService/ListJobs")

    with pytest.raises(grpc.RpcError) as caught:
        ask(b"\xff", timeout=10)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_calls_are_counted_by_how_they_end(server: LiveServer, stubs: Stubs) -> None:
    job = next(iter(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=500))))).job
    before = calls_by_code(server.metrics_url, "WatchJob")

    cancelled = stubs.training.WatchJob(WatchJobRequest(name=job))
    next(iter(cancelled))
    cancelled.cancel()
    with pytest.raises(grpc.RpcError, match=r"(?i)deadline"):
        list(stubs.training.WatchJob(WatchJobRequest(name=job), timeout=0.5))
    stubs.training.ListJobs(ListJobsRequest(), timeout=10)

    expected = Counter({"Canceled": 1, "DeadlineExceeded": 1})
    seen: Counter[str] = Counter()
    for _ in range(100):
        seen = calls_by_code(server.metrics_url, "WatchJob") - before
        if seen.total() == expected.total():
            break
        time.sleep(0.05)
    # The server's deadline and the caller's cancellation race with each other.
    assert seen in (expected, Counter({"Canceled": 2}))


def test_streams_end_at_sigterm_and_say_why(
    transport: str, tmp_path: Path, tiny_dataset: Path
) -> None:
    server = start_server(
        tmp_path, f"--transport={transport}", f"--dataset=tiny={tiny_dataset}", "--spare-workers=0"
    )
    stream = connect(server.target).training.TrainJob(
        TrainJobRequest(spec=tiny_spec(epochs=10_000)), timeout=60
    )
    next(event for event in stream if event.HasField("epoch"))

    assert server.stop() == 0

    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason(caught.value)
