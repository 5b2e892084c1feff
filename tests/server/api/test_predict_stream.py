"""`PredictStream` over real channels, and the logits that it and `Predict` return."""

import queue
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from prometheus_client.parser import text_string_to_metric_families

from leadline.models.images import encode_png
from leadline.v1.inference_service_pb2 import (
    DATA_TYPE_UINT8,
    EncodedImages,
    PredictRequest,
    PredictStreamRequest,
    PredictStreamResponse,
    Tensor,
)
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.training_service_pb2 import TrainJobRequest
from support.datasets import specs_of
from support.servers import LiveServer, ServerFactory
from support.wire import Stubs, connect, reason

tiny_spec = specs_of(__file__)

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]
NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]


@pytest.fixture(scope="module")
def model(trained: list[JobEvent]) -> str:
    return trained[-1].finished.model


@pytest.fixture(scope="module")
def pixels() -> Any:
    return np.random.default_rng(1).integers(0, 256, (600, 32, 32, 3), dtype=np.uint8)


def tensor(pixels: Any) -> Tensor:
    return Tensor(data_type=DATA_TYPE_UINT8, shape=pixels.shape, data=pixels.tobytes())


def message(model: str, pixels: Any, **more: Any) -> PredictStreamRequest:
    return PredictStreamRequest(request=PredictRequest(model=model, tensor=tensor(pixels), **more))


def encoded(model: str, *images: bytes) -> PredictStreamRequest:
    request = PredictRequest(model=model, encoded=EncodedImages(images=images))
    return PredictStreamRequest(request=request)


def stream(stubs: Stubs, messages: Iterable[PredictStreamRequest]) -> list[PredictStreamResponse]:
    return list(stubs.inference.PredictStream(iter(messages), timeout=60))


class Sender:
    """Sends messages one by one, and ends when the test decides."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[PredictStreamRequest | None] = queue.SimpleQueue()
        self.send = self._messages.put

    def end(self) -> None:
        self._messages.put(None)

    def __iter__(self) -> Iterator[PredictStreamRequest]:
        return iter(self._messages.get, None)


def test_messages_are_answered_in_their_order_as_predict_answers_them(
    stubs: Stubs, model: str, pixels: Any
) -> None:
    sizes = np.random.default_rng(2).integers(1, 60, 25)
    parts = [pixels[start : start + size] for start, size in enumerate(sizes)]
    expected = [
        stubs.inference.Predict(PredictRequest(model=model, tensor=tensor(part)), timeout=10)
        for part in parts
    ]

    answers = stream(stubs, (message(model, part) for part in parts))

    for answer, whole in zip(answers, expected, strict=True):
        assert answer.response.model == whole.model
        assert answer.response.weights_sha256 == whole.weights_sha256
        found = [prediction.class_index for prediction in answer.response.predictions]
        assert found == [prediction.class_index for prediction in whole.predictions]


def test_each_of_many_streams_has_its_own_answers(stubs: Stubs, model: str, pixels: Any) -> None:
    whole = stubs.inference.Predict(PredictRequest(model=model, tensor=tensor(pixels)), timeout=30)
    classes = [prediction.class_index for prediction in whole.predictions]
    wrong: list[int] = []

    def run(number: int) -> None:
        size = 1 + 7 * number
        answers = stream(
            stubs, (message(model, pixels[at : at + size]) for at in range(0, 400, size))
        )
        found = [
            prediction.class_index
            for answer in answers
            for prediction in answer.response.predictions
        ]
        if found != classes[: len(found)] or len(found) < 400:
            wrong.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_an_answer_comes_before_the_next_message_is_sent(
    stubs: Stubs, model: str, pixels: Any
) -> None:
    sender = Sender()
    answers = stubs.inference.PredictStream(iter(sender), timeout=20)

    for size in (1, 3, 2):
        sender.send(message(model, pixels[:size]))
        assert len(next(answers).response.predictions) == size

    sender.end()
    assert list(answers) == []
    assert answers.code() is grpc.StatusCode.OK


def test_what_is_wrong_with_a_message_is_its_answer_and_the_stream_goes_on(
    stubs: Stubs, model: str, pixels: Any
) -> None:
    good = encode_png(pixels[0])
    answers = stream(
        stubs,
        [
            encoded(model, good),
            encoded(model, good, b"no image", good, b""),
            PredictStreamRequest(),
            encoded("models/nosuchmodel", good),
            message(model, pixels[:1], top_k=-1),
            encoded(model),
            encoded(model, good),
        ],
    )

    errors = [answer.error for answer in answers[1:-1]]
    assert [answer.WhichOneof("result") for answer in answers] == [
        *("response", "error", "error", "error", "error", "error", "response")
    ]
    assert [error.code for error in errors] == [
        *(INVALID_ARGUMENT, INVALID_ARGUMENT, NOT_FOUND, INVALID_ARGUMENT, INVALID_ARGUMENT)
    ]
    assert [fields(error) for error in errors] == [
        *(["encoded.images[1]", "encoded.images[3]"], ["request"], []),
        *(["top_k"], ["encoded.images"]),
    ]
    assert [reasons(error)[0] for error in errors[:3]] == [
        *("INVALID_IMAGE", "INVALID_FIELD", "MODEL_NOT_FOUND")
    ]
    assert all(error.message for error in errors)


def fields(status: Any) -> list[str]:
    violations = unpacked(status, error_details_pb2.BadRequest)
    return [
        field_violation.field for found in violations for field_violation in found.field_violations
    ]


def reasons(status: Any) -> list[str]:
    return [info.reason for info in unpacked(status, error_details_pb2.ErrorInfo)]


def unpacked(status: Any, kind: Callable[[], Any]) -> list[Any]:
    messages = []
    for detail in status.details:
        message = kind()
        if detail.Unpack(message):
            messages.append(message)
    return messages


def test_bytes_that_are_no_message_end_the_stream(stubs: Stubs) -> None:
    call: Callable[..., Iterator[bytes]] = stubs.channel.stream_stream(
        "/leadline.v1.InferenceService/PredictStream"
    )

    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([b"\xff\xff"]), timeout=10))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason(caught.value) == "INVALID_FIELD"


def test_a_stream_without_messages_ends_well(stubs: Stubs) -> None:
    assert stream(stubs, []) == []


def test_logits_are_returned_on_request(stubs: Stubs, model: str, pixels: Any) -> None:
    request = PredictRequest(model=model, tensor=tensor(pixels[:5]), top_k=10, include_logits=True)
    without = PredictRequest(model=model, tensor=tensor(pixels[:5]), top_k=10)

    answer = stubs.inference.Predict(request, timeout=10)
    (streamed,) = stream(stubs, [PredictStreamRequest(request=request)])
    plain = stubs.inference.Predict(without, timeout=10)

    assert all(not prediction.logits for prediction in plain.predictions)
    for prediction, other in zip(answer.predictions, streamed.response.predictions, strict=True):
        logits = np.array(prediction.logits)
        assert prediction.class_index == logits.argmax()
        powers = np.exp(logits - logits.max())
        chances = {score.class_index: score.probability for score in prediction.top_k}
        assert [chances[index] for index in range(10)] == pytest.approx(powers / powers.sum())
        assert list(other.logits) == pytest.approx(list(prediction.logits), abs=1e-4)


def handled(server: LiveServer) -> dict[str, float]:
    """Returns the number of ended streams by status, and of started streams."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as response:  # noqa: S310
        text = response.read().decode()
    return {
        sample.labels.get("grpc_code", "begun"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("grpc_method") == "PredictStream"
        and sample.name in {"grpc_server_started_total", "grpc_server_handled_total"}
    }


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited for {what} in vain")
        time.sleep(0.02)


@pytest.fixture
def narrow_server(server_factory: ServerFactory) -> LiveServer:
    """A server that admits one prediction at a time, and a model."""
    return server_factory("--max-pending-predictions", "1", "--max-pending-per-stream", "2")


@pytest.fixture
def narrow(narrow_server: LiveServer) -> Iterator[Stubs]:
    stubs = connect(narrow_server.target)
    yield stubs
    stubs.channel.close()


@pytest.fixture
def narrow_model(narrow: Stubs) -> str:
    spec = tiny_spec(blocks=0, epochs=1, batch_size=200)
    events = list(narrow.training.TrainJob(TrainJobRequest(spec=spec), timeout=60))
    return events[-1].finished.model


def test_streams_wait_for_admission_and_release_it_when_their_callers_vanish(
    narrow_server: LiveServer, narrow: Stubs, narrow_model: str, pixels: Any
) -> None:
    # More concurrent messages than the limit: none is refused.
    calls = [
        narrow.inference.PredictStream(iter([message(narrow_model, pixels[:50])] * 6), timeout=60)
        for _ in range(6)
    ]
    assert [len(list(call)) for call in calls] == [6] * 6

    senders = [Sender() for _ in range(20)]
    vanishing = [narrow.inference.PredictStream(iter(sender), timeout=60) for sender in senders]
    for sender in senders:
        for _ in range(5):
            sender.send(message(narrow_model, pixels[:200]))
    next(vanishing[0])
    for call, sender in zip(vanishing, senders, strict=True):
        call.cancel()
        sender.end()

    wait_until(lambda: sum(handled(narrow_server).values()) == 2 * 26, "every stream's end")
    assert handled(narrow_server) == {"begun": 26, "OK": 6, "Canceled": 20}
    # The limiter admits a request again.
    assert len(stream(narrow, [message(narrow_model, pixels[:1])])) == 1
    assert narrow_server.stop() == 0
    assert "Traceback" not in narrow_server.log.read_text()


def test_a_stream_ends_with_its_deadline(stubs: Stubs, model: str, pixels: Any) -> None:
    sender = Sender()
    answers = stubs.inference.PredictStream(iter(sender), timeout=1)
    sender.send(message(model, pixels[:1]))
    assert next(answers).response.predictions

    with pytest.raises(grpc.RpcError) as caught:
        next(answers)

    sender.end()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_stream_ends_when_the_server_stops_and_says_so(
    narrow_server: LiveServer,
    narrow: Stubs,
    narrow_model: str,
    pixels: Any,
) -> None:
    sender = Sender()
    answers = narrow.inference.PredictStream(iter(sender), timeout=60)
    sender.send(message(narrow_model, pixels[:1]))
    assert next(answers).response.predictions

    assert narrow_server.stop() == 0

    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    sender.end()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason(caught.value) == "SHUTTING_DOWN"
