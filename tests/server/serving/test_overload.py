"""Under overload the server refuses requests at once, and then recovers."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from leadline.v1.inference_service_pb2 import (
    DATA_TYPE_UINT8,
    PredictRequest,
    PredictResponse,
    Tensor,
)
from leadline.v1.training_service_pb2 import TrainJobRequest
from support.datasets import specs_of
from support.servers import ServerFactory
from support.wire import Stubs, connect

tiny_spec = specs_of(__file__)

_LIMIT = 4
_CALLS = 200


@pytest.fixture
def stubs(server_factory: ServerFactory) -> Iterator[Stubs]:
    stubs = connect(server_factory("--max-pending-predictions", str(_LIMIT)).target)
    yield stubs
    stubs.channel.close()


def request(stubs: Stubs) -> PredictRequest:
    spec = tiny_spec(blocks=0, epochs=1, batch_size=200)
    events = list(stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=60))
    tensor = Tensor(data_type=DATA_TYPE_UINT8, shape=[64, 32, 32, 3], data=bytes(64 * 3072))
    return PredictRequest(model=events[-1].finished.model, tensor=tensor)


def outcome(call: Any) -> str:
    try:
        answer: PredictResponse = call.result(timeout=60)
    except grpc.RpcError as error:
        return refusal(error)
    assert len(answer.predictions) == 64
    return "answered"


def refusal(error: Any) -> str:
    status = status_pb2.Status.FromString(
        dict(error.trailing_metadata())["grpc-status-details-bin"]
    )
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToMilliseconds() > 0
    return str(error.code().name)


def test_every_call_is_answered_or_refused_with_when_to_come_again(stubs: Stubs) -> None:
    asked = request(stubs)

    outcomes = Counter(
        outcome(call)
        for call in [stubs.inference.Predict.future(asked, timeout=60) for _ in range(_CALLS)]
    )

    assert set(outcomes) <= {"answered", "RESOURCE_EXHAUSTED"}
    assert outcomes["answered"] >= _LIMIT
    assert outcomes.total() == _CALLS
    # When the load ends, the server admits as many as the limit allows.
    after = [stubs.inference.Predict.future(asked, timeout=60) for _ in range(_LIMIT)]
    assert {outcome(call) for call in after} == {"answered"}
