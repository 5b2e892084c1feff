"""The check of answers over a real channel: statuses and logits."""

from collections.abc import Callable

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from harness.checks import Question, WrongAnswerError, check_answers
from harness.infer import OUTPUT, is_ready, request
from leadline.oip.v2.open_inference_pb2 import ModelInferResponse, ModelReadyResponse
from support.scripted import answering

EXPECTED = np.array([[0.5, -2.0, 3.0]], dtype=np.float32)


def answer_with(logits: npt.NDArray[np.float32], *, raw: bool = True, name: str = OUTPUT) -> bytes:
    response = ModelInferResponse(model_name="m")
    output = response.outputs.add(name=name, datatype="FP32", shape=logits.shape)
    if raw:
        response.raw_output_contents.append(logits.tobytes())
    else:
        output.contents.fp32_contents.extend(logits.ravel().tolist())
    return response.SerializeToString()


@pytest.fixture
def question() -> Question:
    return Question(request("m", np.zeros((1, 3, 32, 32), np.float32)), EXPECTED)


@pytest.mark.parametrize("raw", [True, False])
def test_right_answers_pass_and_are_measured(question: Question, *, raw: bool) -> None:
    answer = answer_with(EXPECTED + np.float32(1e-5), raw=raw)

    with answering(lambda _request, _context: answer) as target:
        assert check_answers(target, [question] * 5, at_once=3) == len(answer)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (answer_with(EXPECTED + np.float32(0.1)), "wrong by 0.1"),
        (answer_with(EXPECTED[:, :2]), "have the shape"),
        (answer_with(EXPECTED, name="probabilities"), "has the outputs"),
        (b"", "has the outputs"),
        (b"no message", "is no ModelInferResponse"),
    ],
)
def test_a_wrong_answer_is_found_out(question: Question, answer: bytes, why: str) -> None:
    with (
        answering(lambda _request, _context: answer) as target,
        pytest.raises(WrongAnswerError, match=why),
    ):
        check_answers(target, [question], at_once=1)


def test_one_wrong_answer_among_many_is_found_out(question: Question) -> None:
    other = Question(question.message, EXPECTED[:, ::-1])

    with (
        answering(lambda _request, _context: answer_with(EXPECTED)) as target,
        pytest.raises(WrongAnswerError, match="wrong by"),
    ):
        check_answers(target, [question, question, other], at_once=3)


def test_a_status_that_http_does_not_show_is_found_out(question: Question) -> None:
    with (
        answering(refuse(grpc.StatusCode.INTERNAL)) as target,
        pytest.raises(WrongAnswerError, match="INTERNAL"),
    ):
        check_answers(target, [question], at_once=1)


def test_a_server_is_ready_when_it_says_so_of_the_model() -> None:
    with answering(
        lambda _request, _context: ModelReadyResponse(ready=True).SerializeToString()
    ) as target:
        assert is_ready(target, "m")
    with answering(lambda _request, _context: b"") as target:
        assert not is_ready(target, "m")
    assert not is_ready(target, "m")  # the server is gone


def refuse(code: grpc.StatusCode) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def answer(_request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "no")

    return answer
