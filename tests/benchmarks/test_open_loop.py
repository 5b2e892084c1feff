"""The results of all calls of an open loop."""

import itertools
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from harness.open_loop import call_now, latencies, run_open_loop
from support.scripted import Answer, answering


def caller(channel: grpc.Channel, timeout: float = 10) -> Callable[[], Any]:
    method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/a.B/C")
    return lambda: method.future(b"?", timeout=timeout)


def refuse(context: grpc.ServicerContext, *, retry: bool) -> None:
    packed = AnyMessage()
    packed.Pack(error_details_pb2.RetryInfo(retry_delay=Duration(nanos=100_000_000)))
    status = status_pb2.Status(code=8, message="no", details=[packed] if retry else [])
    trailer = ("grpc-status-details-bin", status.SerializeToString())
    context.set_trailing_metadata((trailer,))
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no")


def in_turns() -> Answer:
    """Answers, refuses with a retry delay, refuses without one, and so on."""
    turn = itertools.count()

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        kind = next(turn) % 3
        if kind:
            refuse(context, retry=kind == 1)
        return request

    return answer


def test_each_call_is_answered_refused_or_lost() -> None:
    with answering(in_turns()) as target, grpc.insecure_channel(target) as channel:
        outcome = run_open_loop(caller(channel), per_second=200, seconds=0.15)

    assert len(outcome.calls) == 30
    assert len(outcome.answered) == len(outcome.refused) == len(outcome.lost) == 10
    assert {call.answer for call in outcome.answered} == {b"?"}
    assert {call.retry_after for call in outcome.refused} == {0.1}
    assert {call.error for call in outcome.lost} == {"no"}


def test_calls_are_due_at_a_constant_rate_and_their_latency_counts_from_then() -> None:
    with (
        answering(lambda request, _context: request) as target,
        grpc.insecure_channel(target) as channel,
    ):
        calls = run_open_loop(caller(channel), per_second=500, seconds=0.02).calls

    steps = [later.due - earlier.due for earlier, later in itertools.pairwise(calls)]
    assert steps == pytest.approx([0.002] * 9)
    assert all(call.due <= call.sent < call.ended for call in calls)
    assert (latencies(calls) >= latencies(calls, since="sent")).all()


def test_one_call_can_be_made_at_once() -> None:
    with (
        answering(lambda request, _context: request) as target,
        grpc.insecure_channel(target) as channel,
    ):
        assert call_now(caller(channel)).is_answered
    assert call_now(caller_to_nobody(target)).code is grpc.StatusCode.UNAVAILABLE


def caller_to_nobody(target: str) -> Callable[[], Any]:
    return caller(grpc.insecure_channel(target))
