"""Faulty streams of predictions: a server plays the faults of real servers and proxies."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status

from leadline.client import (
    Client,
    ImageFailure,
    InternalError,
    Prediction,
    RpcError,
    UnavailableError,
    UnimplementedError,
    UnknownError,
    _batches,
)
from leadline.client._batches import BatchLimits
from leadline.v1.inference_service_pb2 import (
    PredictRequest,
    PredictResponse,
    PredictStreamRequest,
    PredictStreamResponse,
)
from leadline.v1.inference_service_pb2_grpc import (
    InferenceServiceServicer,
    add_InferenceServiceServicer_to_server,
)

MakeClient = Callable[..., Client]

# The script of one stream: the number of messages to answer, the answers, and the final status.
Step = int | PredictStreamResponse | tuple[grpc.StatusCode, str]

UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "as the script says")


@dataclass
class ScriptedServer(InferenceServiceServicer):
    """Plays one script per stream; predicts the class whose number is the image's bytes."""

    scripts: list[Sequence[Step]]
    models: list[str] = field(default_factory=list)
    asked_apart: int = 0

    def PredictStream(  # noqa: N802
        self, requests: Iterator[PredictStreamRequest], context: Any
    ) -> Iterator[PredictStreamResponse]:
        for step in self.scripts.pop(0):
            match step:
                case int():
                    for message in itertools.islice(requests, step):
                        self.models.append(message.request.model)
                        yield PredictStreamResponse(response=answered(message.request))
                case PredictStreamResponse():
                    next(requests)
                    yield step
                case code, text:
                    context.abort(code, text)

    def Predict(self, request: PredictRequest, context: Any) -> PredictResponse:  # noqa: N802
        del context
        self.asked_apart += 1
        return answered(request)


def answered(request: PredictRequest) -> PredictResponse:
    return PredictResponse(
        predictions=[Prediction(class_index=int(image)) for image in request.encoded.images],
        model="models/a/epochs/1",
    )


def refused(code: int) -> PredictStreamResponse:
    return PredictStreamResponse(error=Status(code=code, message="no"))


Play = Callable[..., tuple[ScriptedServer, str]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    monkeypatch.setattr(_batches, "STREAM_LIMITS", BatchLimits(images=2, bytes=1000))
    servers: list[grpc.Server] = []

    def start(*scripts: Sequence[Step]) -> tuple[ScriptedServer, str]:
        servicer = ScriptedServer(list(scripts))  # type: ignore[abstract]
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        add_InferenceServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return servicer, f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(grace=None).wait()


IMAGES = [str(number).encode() for number in range(20)]


def numbers(results: Iterator[Prediction | ImageFailure]) -> list[int]:
    found = []
    for result in results:
        assert isinstance(result, Prediction)
        found.append(result.class_index)
    return found


@pytest.mark.parametrize(
    "end",
    [
        UNAVAILABLE,
        (grpc.StatusCode.INTERNAL, "cut"),
        (grpc.StatusCode.CANCELLED, "by a proxy"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "of a proxy"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams"),
    ],
    ids=lambda end: end[0].name,
)
def test_a_stream_that_breaks_is_taken_up_where_it_broke(
    make_client: MakeClient, play: Play, end: Step
) -> None:
    server, target = play([1, end], [3, end], [end], [2, end], [100])
    told: list[RpcError] = []
    stream = make_client(target).predict_stream(
        IMAGES, model="a", on_reconnect=lambda error, _delay: told.append(error)
    )
    assert numbers(stream) == list(range(20))
    assert len(told) == 4
    assert server.asked_apart == 0
    # The first checkpoint answers the whole stream.
    assert server.models[0] == "models/a"
    assert set(server.models[1:]) == {"models/a/epochs/1"}
    assert len(server.models) == 10


def test_a_stream_that_ends_well_but_early_is_taken_up_again(
    make_client: MakeClient, play: Play
) -> None:
    _, target = play([2], [], [100])
    assert numbers(make_client(target).predict_stream(IMAGES, model="a")) == list(range(20))


def test_a_message_that_is_too_large_on_its_way_is_asked_apart(
    make_client: MakeClient, play: Play
) -> None:
    text = "SERVER: Received message larger than max (9 vs. 8)"
    server, target = play([3, (grpc.StatusCode.RESOURCE_EXHAUSTED, text)], [100])
    assert numbers(make_client(target).predict_stream(IMAGES, model="a")) == list(range(20))
    # grpc.aio may lose the status; the stream is then resumed and succeeds.
    assert server.asked_apart <= 1


def test_a_server_that_was_never_reached_is_asked_four_times(
    make_client: MakeClient, play: Play
) -> None:
    server, target = play(*[[UNAVAILABLE]] * 5)
    # The outcome depends on whether the call's end comes before its first message.
    with pytest.raises(UnavailableError, match=r"as the script says|being sent"):
        next(make_client(target).predict_stream(IMAGES, model="a"))
    assert len(server.scripts) == 1


@pytest.mark.parametrize(("code", "kind"), [(12, UnimplementedError), (99, UnknownError)])
def test_an_error_that_is_not_of_an_image_is_raised(
    make_client: MakeClient, play: Play, code: int, kind: type[RpcError]
) -> None:
    _, target = play([1, refused(code)])
    stream = make_client(target).predict_stream(IMAGES, model="a")
    assert [next(stream), next(stream)]
    with pytest.raises(kind, match="no"):
        next(stream)


def test_an_answer_for_fewer_images_is_no_answer(make_client: MakeClient, play: Play) -> None:
    short = PredictStreamResponse(response=PredictResponse(predictions=[Prediction()]))
    _, target = play([1, short])
    stream = make_client(target).predict_stream(IMAGES, model="a")
    assert [next(stream), next(stream)]
    with pytest.raises(InternalError, match="answered 2 images with 1 prediction"):
        next(stream)
