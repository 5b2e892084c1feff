"""Sends ten times the server's capacity for a minute, and reports the result of each request."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from harness.checks import WrongAnswerError
from harness.leadline import LeadlineServer
from harness.models import Trained
from harness.open_loop import Call, Outcome, call_now, latencies, run_open_loop
from harness.predict import caller, classes, draw_pixels, expected_classes, unpinned_leadline
from harness.stats import percentile
from harness.tables import say, table

TIMES = 10

# A deep network and several images per request, so that this process can send ten times as many
# requests as the server can answer.
BLOCKS = 64
_IMAGES = 40

_LIMIT = 64
_TIMEOUT = 30.0
_CAPACITY_SECONDS = 5.0
_SAMPLE_SECONDS = 0.25
_RECOVERY_CALLS = 50
_CAPACITY_IN_FLIGHT = 8
_IN_FLIGHT = "leadline_predictions_in_flight"


@dataclass(frozen=True, kw_only=True)
class Overload:
    """The results."""

    capacity: float
    """The capacity in requests per second, measured before with the most allowed requests in
    flight."""

    offered: int
    answered: int
    refused: int
    lost: int
    """Requests that were neither answered nor refused with a retry delay."""

    wrong: int
    """Responses with a wrong class."""

    refusal_p50: float
    """Milliseconds from the due time of the call, like all that follow."""

    refusal_p99: float
    refusal_p99_sent: float
    """Milliseconds from the sending of the call, which excludes the generator's lag."""

    answer_p99: float
    lag_p99: float
    """How late the load generator sent the calls."""

    in_flight_most: int
    """The most calls in flight in the server's metrics."""

    in_flight_limit: int
    recovery_answered: int
    """Milliseconds of the calls made one by one right after the load."""

    recovery_calls: int
    recovery_p99: float
    lost_statuses: dict[str, int]


def measure(trained: Trained, *, seconds: float) -> Overload:
    """Measures the capacity, then sends ten times as much, then measures the recovery.

    Raises:
        WrongAnswerError: a prediction is wrong even without load.
        TimeoutError: calls did not end.
    """
    pixels = draw_pixels(_IMAGES)
    expected = expected_classes(trained, pixels)
    limit = ("--max-pending-predictions", str(_LIMIT))
    with unpinned_leadline(trained, *limit) as (server, channel):
        start = caller(channel, trained, pixels, timeout=_TIMEOUT)
        capacity = _capacity(start, expected)
        say(f"it answers {capacity:.0f} requests a second; now {TIMES} times as many")
        with _watching(server) as in_flight:
            outcome = run_open_loop(start, per_second=capacity * TIMES, seconds=seconds)
        recovery = [call_now(start) for _ in range(_RECOVERY_CALLS)]
    if not any(in_flight):
        raise WrongAnswerError(f"the server's metric {_IN_FLIGHT} never showed a call in flight")
    return _overload(capacity, outcome, expected, max(in_flight), recovery)


def report(result: Overload) -> str:
    """Returns the table, with the limit beside each figure."""
    refusal = (
        f"{result.refusal_p50:.1f} and {result.refusal_p99:.1f} ms, "
        f"{result.refusal_p99_sent:.1f} ms from the sending"
    )
    recovery = (
        f"{result.recovery_answered} of {result.recovery_calls} answered, "
        f"p99 {result.recovery_p99:.1f} ms"
    )
    rows = [
        ("requests offered", f"{result.offered:,}, {TIMES} times {result.capacity:,.0f}/s", ""),
        ("answered", f"{result.answered:,}, slowest hundredth {result.answer_p99:,.0f} ms", ""),
        ("refused with a retry delay", f"{result.refused:,}", ""),
        ("neither answered nor refused", f"{result.lost:,} {result.lost_statuses or ''}", "0"),
        ("answered wrongly", f"{result.wrong:,}", "0"),
        ("refusal, p50 and p99", refusal, "50 ms"),
        ("sent late by, p99", f"{result.lag_p99:.1f} ms", ""),
        ("in flight at most", f"{result.in_flight_most}", f"{result.in_flight_limit}"),
        ("right after the load", recovery, "all"),
    ]
    return table(("overload", "measured", "bar"), rows)


def as_json(result: Overload) -> dict[str, Any]:
    """Returns all results."""
    return {"overload": asdict(result)}


def _overload(
    capacity: float,
    outcome: Outcome,
    expected: list[int],
    in_flight_most: int,
    recovery: list[Call],
) -> Overload:
    answered, refused = outcome.answered, outcome.refused
    refusals = latencies(refused)
    return Overload(
        capacity=capacity,
        offered=len(outcome.calls),
        answered=len(answered),
        refused=len(refused),
        lost=len(outcome.lost),
        wrong=sum(classes(call.answer) != expected for call in answered),
        refusal_p50=percentile(refusals, 50),
        refusal_p99=percentile(refusals, 99),
        refusal_p99_sent=percentile(latencies(refused, since="sent"), 99),
        answer_p99=percentile(latencies(answered), 99),
        lag_p99=percentile(outcome.lags(), 99),
        in_flight_most=in_flight_most,
        in_flight_limit=_LIMIT,
        recovery_answered=sum(call.is_answered for call in recovery),
        recovery_calls=len(recovery),
        recovery_p99=percentile(latencies(recovery), 99),
        lost_statuses=dict(
            Counter(f"{call.code.name}: {call.error}"[:80] for call in outcome.lost)
        ),
    )


def _capacity(start: Callable[[], Any], expected: list[int]) -> float:
    """Returns the requests per second of a closed loop that always has requests waiting."""
    end = time.monotonic() + _CAPACITY_SECONDS

    def ask(_caller: int) -> int:
        count = 0
        while time.monotonic() < end:
            if classes(start().result()) != expected:
                raise WrongAnswerError("a predicted class differs from that of torch")
            count += 1
        return count

    with ThreadPoolExecutor(_CAPACITY_IN_FLIGHT) as pool:
        return sum(pool.map(ask, range(_CAPACITY_IN_FLIGHT))) / _CAPACITY_SECONDS


@contextmanager
def _watching(server: LeadlineServer) -> Iterator[list[int]]:
    """Polls the number of calls in flight in the server's metrics."""
    seen: list[int] = []
    end = threading.Event()

    def watch() -> None:
        while not end.wait(_SAMPLE_SECONDS):
            seen.append(int(server.total(_IN_FLIGHT)))

    with ThreadPoolExecutor(1) as pool:
        watcher = pool.submit(watch)
        try:
            yield seen
        finally:
            end.set()
            watcher.result()
