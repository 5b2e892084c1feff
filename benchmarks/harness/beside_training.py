"""Measures how much a training job on the same cores slows predictions."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import grpc

from harness.checks import WrongAnswerError
from harness.models import BLOCK_CONVOLUTIONS, Trained
from harness.open_loop import Outcome, latencies, run_open_loop
from harness.predict import caller, classes, draw_pixels, expected_classes, unpinned_leadline
from harness.stats import Spread, percentile
from harness.tables import say, table
from leadline.client import Client

PER_SECOND = 200
_TIMEOUT = 10.0

# More epochs than any measurement lasts; the job is cancelled after each.
_EPOCHS = 10_000


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Latencies in milliseconds, from the time when each call was due."""

    round: int
    training: bool
    p50: float
    p99: float
    lag_p99: float
    """How late the load generator sent the calls."""


def measure(trained: Trained, *, rounds: int, seconds: float) -> list[Latency]:
    """Measures each round first without training, then with it.

    Raises:
        WrongAnswerError: a call failed, or its prediction was wrong.
    """
    latencies = []
    with unpinned_leadline(trained) as (server, channel):
        _ask(channel, trained, 2.0)  # loads the network and warms up both sides
        for number in range(1, rounds + 1):
            latencies.append(_latency(channel, trained, number, seconds, training=False))
            with training(server.target):
                latencies.append(_latency(channel, trained, number, seconds, training=True))
    return latencies


@contextmanager
def training(target: str) -> Iterator[None]:
    """Trains a job within the context, which begins with its first steps."""
    with Client(target) as client:
        job = client.train(
            dataset="synthetic",
            blocks=10,
            block_convolutions=BLOCK_CONVOLUTIONS,
            batch_norm=True,
            epochs=_EPOCHS,
            progress_interval=0.1,
        )
        try:
            for event in job.events():
                if event.HasField("progress"):
                    break
            yield
        finally:
            job.cancel()


def report(latencies: list[Latency]) -> str:
    """Returns the table, and the ratio of the 99th percentiles."""
    rows = [
        [
            str(latency.round),
            "with" if latency.training else "without",
            f"{latency.p50:.2f}",
            f"{latency.p99:.2f}",
            f"{latency.lag_p99:.2f}",
        ]
        for latency in latencies
    ]
    heads = ("round", "training", "p50 ms", "p99 ms", "sent late by, p99 ms")
    ratio = Spread.of_ratios(
        [latency.p99 for latency in latencies if latency.training],
        [latency.p99 for latency in latencies if not latency.training],
    )
    return table(heads, rows) + f"\np99 with training / without: {ratio.text(2)} (bar: under 4)\n"


def as_json(latencies: list[Latency]) -> dict[str, Any]:
    """Returns all measurements."""
    return {"beside_training": [asdict(latency) for latency in latencies]}


def _latency(
    channel: grpc.Channel, trained: Trained, number: int, seconds: float, *, training: bool
) -> Latency:
    outcome = _ask(channel, trained, seconds)
    times = latencies(outcome.calls)
    latency = Latency(
        round=number,
        training=training,
        p50=percentile(times, 50),
        p99=percentile(times, 99),
        lag_p99=percentile(outcome.lags(), 99),
    )
    say(f"round {number} {'with' if training else 'without'} training: p99 {latency.p99:.2f} ms")
    return latency


def _ask(channel: grpc.Channel, trained: Trained, seconds: float) -> Outcome:
    pixels = draw_pixels(1)
    expected = expected_classes(trained, pixels)
    start = caller(channel, trained, pixels, timeout=_TIMEOUT)
    outcome = run_open_loop(start, per_second=PER_SECOND, seconds=seconds)
    for call in outcome.calls:
        if not call.is_answered:
            raise WrongAnswerError(f"a call ended with {call.code.name}: {call.error}")
        if classes(call.answer) != expected:
            raise WrongAnswerError(f"an image of class {expected} got another class")
    return outcome
