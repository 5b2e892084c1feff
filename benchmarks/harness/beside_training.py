"""How much slower answers are while a job trains on the same cores."""

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

# Long enough to outlast every measurement; the job is cancelled after each.
_EPOCHS = 10_000


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds, from when each call was due."""

    round: int
    training: bool
    p50: float
    p99: float
    lag_p99: float
    """How late calls were sent, which is the generator's doing."""


def measure(trained: Trained, *, rounds: int, seconds: float) -> list[Latency]:
    """Each round first without training, then with it.

    Raises:
        WrongAnswerError: a call was not answered, or wrongly.
    """
    latencies = []
    with unpinned_leadline(trained) as (server, channel):
        _ask(channel, trained, 2.0)  # loads the network, warms up both sides
        for number in range(1, rounds + 1):
            latencies.append(_latency(channel, trained, number, seconds, training=False))
            with training(server.target):
                latencies.append(_latency(channel, trained, number, seconds, training=True))
    return latencies


@contextmanager
def training(target: str) -> Iterator[None]:
    """A job that trains, from its first steps on, within the context."""
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
    """The table, and how many times slower the slowest hundredth is."""
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
    """Every measurement."""
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
            raise WrongAnswerError(f"an image of class {expected} was taken for another")
    return outcome
