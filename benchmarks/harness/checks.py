"""Checks the gRPC statuses and the predictions of a measurement, not only HTTP statuses.

h2load checks neither the status in the trailers nor the content of a response. So gRPC's own client
sends the same request before and after the measurement, and compares the logits with those of
torch. Two counts must agree with h2load's count. One is the server's count of OK and failed calls.
The other is the bytes of all responses, because an error has no body.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from harness.h2load import Load, LoadResult
from harness.infer import Logits, infer, logits, open_channel

# Libraries that sum in different orders differ only by rounding.
_TOLERANCE = 1e-3


class WrongAnswerError(Exception):
    """A server did not answer correctly; the message says what is wrong."""


@dataclass(frozen=True)
class Counts:
    """A server's counts of completed ModelInfer calls."""

    succeeded: int
    failed: int

    def __sub__(self, earlier: "Counts") -> "Counts":
        return Counts(self.succeeded - earlier.succeeded, self.failed - earlier.failed)


@dataclass(frozen=True)
class Question:
    """A request with its expected logits."""

    message: bytes
    """The serialized request."""

    expected: Logits
    """float32 [images, classes]."""


def check_answers(target: str, questions: list[Question], *, at_once: int) -> int:
    """Sends all requests, some concurrently, and compares every response.

    Returns:
        The size in bytes of the response to the first request.

    Raises:
        WrongAnswerError: a status is not OK, or a response is wrong.
    """
    with open_channel(target) as channel, ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(lambda question: _ask(channel, question), questions))
    return len(answers[0])


def check_load(load: Load, result: LoadResult, *, counted: Counts, answer_bytes: int) -> None:
    """Compares h2load's counts with the server's, and with the bytes received.

    Args:
        load: the load that h2load generated.
        result: the result that h2load reports.
        counted: the server's counts for the same time, including the warm-up.
        answer_bytes: the size of one response, without its gRPC frame.

    Raises:
        WrongAnswerError: the counts differ by more than the calls in flight at the end.
    """
    if result.failed:
        raise WrongAnswerError(f"{result.failed} requests were not answered with HTTP status 200")
    if not result.succeeded:
        raise WrongAnswerError("nothing was answered: were the seconds too few?")
    if counted.succeeded < result.succeeded:
        raise WrongAnswerError(
            f"the server ended {counted.succeeded} calls with OK, and h2load had "
            f"{result.succeeded} answers"
        )
    if counted.failed > load.in_flight:  # in flight when h2load ended
        raise WrongAnswerError(f"the server ended {counted.failed} calls with an error")
    _check_bytes(load, result, counted, answer_bytes)


def _check_bytes(load: Load, result: LoadResult, counted: Counts, answer_bytes: int) -> None:
    framed = answer_bytes + 5
    answers = result.data_bytes / framed
    if not result.succeeded <= answers <= counted.succeeded + load.in_flight:
        raise WrongAnswerError(
            f"{result.data_bytes} bytes of answers are {answers:.1f} answers of {framed} bytes, "
            f"but {result.succeeded} to {counted.succeeded} were counted"
        )


def _ask(channel: grpc.Channel, question: Question) -> bytes:
    try:
        answer = infer(channel, question.message)
    except grpc.RpcError as error:
        raise WrongAnswerError(f"the status is not OK: {error}") from error
    _compare(answer, question.expected)
    return answer


def _compare(answer: bytes, expected: Logits) -> None:
    try:
        actual = logits(answer)
    except (ValueError, DecodeError) as error:
        raise WrongAnswerError(f"the answer is no ModelInferResponse: {error}") from error
    if actual.shape != expected.shape:
        raise WrongAnswerError(f"the logits have the shape {list(actual.shape)}")
    if not np.allclose(actual, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        worst = float(np.abs(actual - expected).max())
        raise WrongAnswerError(f"a logit is wrong by {worst:g}")
