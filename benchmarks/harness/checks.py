"""That what was measured was right: statuses and answers, not only HTTP codes.

h2load sees neither the status in the trailers nor what an answer says. So the
bytes that it sends are sent with gRPC's own client before and after it, and
the answers compared with what the network gives in torch. While it runs, two
counts must agree with its own: the server's, of the calls that it ended with
OK and otherwise; and the bytes of all answers, since an error carries none.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from harness.h2load import Load, LoadResult
from harness.infer import Logits, infer, logits, open_channel

# Two libraries that sum in another order differ by rounding, and by no more.
_TOLERANCE = 1e-3


class WrongAnswerError(Exception):
    """A server did not do what is being measured: the message says what instead."""


@dataclass(frozen=True)
class Counts:
    """Calls of ModelInfer that a server says it has ended."""

    succeeded: int
    failed: int

    def __sub__(self, earlier: "Counts") -> "Counts":
        return Counts(self.succeeded - earlier.succeeded, self.failed - earlier.failed)


@dataclass(frozen=True)
class Question:
    """A request, and what must be answered to it."""

    message: bytes
    """The request, serialised."""

    expected: Logits
    """float32 [images, classes]."""


def check_answers(target: str, questions: list[Question], *, at_once: int) -> int:
    """Asks all questions, so many at a time, and compares every answer.

    Returns:
        The bytes that an answer to the first has.

    Raises:
        WrongAnswerError: a status is another than OK, or an answer is wrong.
    """
    with open_channel(target) as channel, ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(lambda question: _ask(channel, question), questions))
    return len(answers[0])


def check_load(load: Load, result: LoadResult, *, counted: Counts, answer_bytes: int) -> None:
    """Compares h2load's counts with the server's, and with the bytes that came.

    Args:
        load: what was asked for.
        result: what h2load says came of it.
        counted: what the server says it ended meanwhile, the warm-up included.
        answer_bytes: of one answer, without its frame.

    Raises:
        WrongAnswerError: they disagree by more than what was cut off at the end.
    """
    if result.failed:
        raise WrongAnswerError(f"{result.failed} requests were not answered with HTTP's 200")
    if not result.succeeded:
        raise WrongAnswerError("nothing was answered: were the seconds too few?")
    if counted.succeeded < result.succeeded:
        raise WrongAnswerError(
            f"the server ended {counted.succeeded} calls with OK, and h2load had "
            f"{result.succeeded} answers"
        )
    if counted.failed > load.in_flight:  # those that h2load left at its end
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
        raise WrongAnswerError(f"the answer is no answer: {error}") from error
    if actual.shape != expected.shape:
        raise WrongAnswerError(f"the logits have the shape {list(actual.shape)}")
    if not np.allclose(actual, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        worst = float(np.abs(actual - expected).max())
        raise WrongAnswerError(f"a logit is wrong by {worst:g}")
