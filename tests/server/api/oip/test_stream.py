"""Streams of the Open Inference Protocol on the wire, with the project's own messages."""

import signal
from collections.abc import Iterator
from queue import SimpleQueue

import grpc
import numpy as np
import pytest

from leadline.oip.v2 import open_inference_pb2 as oip
from support.open_inference import (
    OpenInference,
    floats_in,
    raw_request,
)
from support.servers import ServerFactory
from support.wire import connect, reason


def test_a_stream_is_answered_in_order_and_goes_on_after_errors(
    client: OpenInference, job_id: str, noise: np.ndarray
) -> None:
    good = [raw_request(job_id, "UINT8", noise[:1], id=str(number)) for number in range(40)]
    bad = raw_request(job_id, "FP32", noise[:1], id="bad")
    gone = raw_request("nosuchmodel", "UINT8", noise[:1], id="gone")
    requests = [*good[:20], bad, gone, *good[20:]]

    answers = list(client.stream(requests))

    ids = [answer.infer_response.id for answer in answers]
    assert ids == [request.id for request in requests]
    errors = {
        answer.infer_response.id: answer.error_message for answer in answers if answer.error_message
    }
    assert list(errors) == ["bad", "gone"]
    assert "inputs[0].shape" in errors["bad"]
    parameters = answers[21].infer_response.parameters
    assert parameters["status"].string_param == "NOT_FOUND"
    assert parameters["reason"].string_param == "MODEL_NOT_FOUND"
    expected = floats_in(client.infer(good[0]), "logits")
    for answer in (*answers[:20], *answers[22:]):
        assert floats_in(answer.infer_response, "logits") == pytest.approx(expected, abs=1e-5)
        assert answer.infer_response.parameters["triton_final_response"].bool_param


def test_a_stream_ends_with_the_error_as_its_status_on_request(
    client: OpenInference, job_id: str, noise: np.ndarray
) -> None:
    requests = [
        raw_request(job_id, "UINT8", noise),
        raw_request("nosuchmodel", "UINT8", noise),
        raw_request(job_id, "UINT8", noise),
    ]

    answers = client.stream(requests, metadata=(("triton_grpc_error", "true"),))

    assert next(answers).infer_response.outputs
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert reason(caught.value) == "MODEL_NOT_FOUND"


def test_a_stream_has_a_bounded_number_of_requests_in_flight(
    client: OpenInference, job_id: str, noise: np.ndarray
) -> None:
    read = 0

    def endless() -> Iterator[oip.ModelInferRequest]:
        nonlocal read
        while True:
            read += 1
            yield raw_request(job_id, "UINT8", np.concatenate([noise] * 800), id=str(read))

    answers = client.stream(endless())

    for number in range(1, 4):
        assert next(answers).infer_response.id == str(number)
    # 12 MB per message: without backpressure, memory would grow without limit.
    assert read < 40
    answers.cancel()  # type: ignore[attr-defined]


def test_a_stop_ends_streams_and_says_so(server_factory: ServerFactory, noise: np.ndarray) -> None:
    server = server_factory("--spare-workers=0")
    stubs = connect(server.target)
    with stubs.channel:
        client = OpenInference(stubs.channel)
        assert client.call("ServerReady", oip.ServerReadyRequest()).ready
        requests: SimpleQueue[oip.ModelInferRequest] = SimpleQueue()
        answers = client.stream(iter(requests.get, None))
        requests.put(raw_request("nosuchmodel", "UINT8", noise))
        assert next(answers).error_message

        server.process.send_signal(signal.SIGTERM)

        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        requests.put(oip.ModelInferRequest())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert reason(caught.value) == "SHUTTING_DOWN"
    assert server.process.wait(timeout=30) == 0
