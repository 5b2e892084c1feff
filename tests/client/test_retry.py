"""When a broken stream is retried, and when not."""

import pytest

from leadline.client import (
    ErrorDetails,
    EventGapError,
    InternalError,
    JobEvent,
    NotFoundError,
    ResourceExhaustedError,
    RpcError,
    UnavailableError,
)
from leadline.client._cursor import EventCursor
from leadline.client._retry import FIRST_DELAY, LAST_DELAY, Attempts, Reconnection
from leadline.v1.job_pb2 import JobFinished, JobProgress


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def reconnection(
    timeout: float | None = 300.0, clock: Clock | None = None, jitter: float = 0.0
) -> Reconnection:
    return Reconnection(timeout, clock=clock or Clock(), jitter=lambda: jitter)


def test_delays_double_up_to_a_limit() -> None:
    retry = reconnection()
    delays = [retry.delay(UnavailableError("away")) for _ in range(2000)]
    assert delays[:4] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY, 8 * FIRST_DELAY]
    assert delays[-1] == LAST_DELAY


def test_jitter_shortens_a_delay_by_at_most_a_half() -> None:
    assert reconnection(jitter=1.0).delay(UnavailableError("away")) == FIRST_DELAY / 2


def test_an_event_makes_the_next_delay_short_again() -> None:
    retry = reconnection()
    for _ in range(5):
        retry.delay(UnavailableError("away"))
    retry.heard()
    assert retry.delay(UnavailableError("away")) == FIRST_DELAY


def test_an_outage_that_lasts_too_long_is_raised() -> None:
    clock = Clock()
    retry = reconnection(10.0, clock)
    retry.delay(UnavailableError("first"))
    clock.now += 10.0
    retry.began()
    with pytest.raises(UnavailableError, match="last"):
        retry.delay(UnavailableError("last"))


def test_without_a_timeout_an_outage_may_last() -> None:
    clock = Clock()
    retry = reconnection(None, clock)
    for _ in range(100):
        clock.now += 50.0
        retry.delay(UnavailableError("away"))


def test_a_quiet_stream_that_lasted_was_attached() -> None:
    clock = Clock()
    retry = reconnection(10.0, clock)
    retry.delay(UnavailableError("first"))
    retry.began()
    clock.now += 3600.0  # an hour in one epoch, without an event
    assert retry.delay(UnavailableError("second outage")) == FIRST_DELAY


def test_an_error_that_stays_is_raised_at_once() -> None:
    with pytest.raises(NotFoundError):
        reconnection().delay(NotFoundError("gone"))


def test_a_fault_of_the_server_is_not_hidden_for_long() -> None:
    retry = reconnection()
    for _ in range(3):
        retry.delay(InternalError("Received RST_STREAM"))
    with pytest.raises(InternalError):
        retry.delay(InternalError("Received RST_STREAM"))


def test_the_advice_of_the_server_is_taken_within_reason() -> None:
    advice = ResourceExhaustedError("full", ErrorDetails(retry_delay=7.0))
    assert reconnection().delay(advice) == 7.0
    advice = ResourceExhaustedError("full", ErrorDetails(retry_delay=1e9))
    assert reconnection().delay(advice) == 60.0


def test_the_user_is_told_before_each_attempt() -> None:
    told: list[tuple[RpcError, float]] = []
    retry = Reconnection(
        60.0, on_reconnect=lambda *news: told.append(news), clock=Clock(), jitter=lambda: 0.0
    )
    error = UnavailableError("away")
    retry.delay(error)
    assert told == [(error, FIRST_DELAY)]


def test_a_call_is_tried_four_times() -> None:
    attempts = Attempts(30.0, jitter=lambda: 0.0)
    assert [attempts.delay(UnavailableError("away")) for _ in range(3)] == [0.2, 0.4, 0.8]
    with pytest.raises(UnavailableError):
        attempts.delay(UnavailableError("away"))


def test_a_call_is_tried_only_within_its_timeout() -> None:
    clock = Clock()
    attempts = Attempts(1.0, clock=clock, jitter=lambda: 0.0)
    clock.now += 0.7
    assert attempts.remaining() == pytest.approx(0.3)
    assert attempts.delay(UnavailableError("away")) == 0.2
    with pytest.raises(UnavailableError):
        attempts.delay(UnavailableError("away"))


def test_a_call_that_was_refused_is_not_tried_again() -> None:
    with pytest.raises(ResourceExhaustedError):
        Attempts(30.0).delay(ResourceExhaustedError("the queue is full"))


def test_each_event_passes_once_and_in_order() -> None:
    cursor = EventCursor("jobs/a", 2)
    assert not cursor.accept(JobEvent(sequence=1))
    assert not cursor.accept(JobEvent(sequence=2))
    assert cursor.accept(JobEvent(sequence=3))
    assert not cursor.accept(JobEvent(sequence=3))
    assert cursor.accept(JobEvent(sequence=0, progress=JobProgress()))
    assert (cursor.sequence, cursor.finished) == (3, False)


def test_a_missing_event_is_an_error() -> None:
    cursor = EventCursor("jobs/a", 2)
    with pytest.raises(EventGapError, match="jobs/a: expected event 3, received 4"):
        cursor.accept(JobEvent(sequence=4))


def test_nothing_passes_after_the_last_event() -> None:
    cursor = EventCursor("jobs/a", 0)
    assert cursor.accept(JobEvent(sequence=1, finished=JobFinished()))
    assert cursor.finished
    assert not cursor.accept(JobEvent(progress=JobProgress()))
