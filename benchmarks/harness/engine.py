"""The engine in process, and what of its speed is left over the wire."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.checks import WrongAnswerError
from harness.comparison import (
    LOAD_CORE,
    SERVER_CORE,
    Plan,
    Point,
    measure,
    questions,
    running,
    stay_on,
)
from harness.infer import Images
from harness.models import Trained, draw_images
from harness.stats import Spread
from harness.tables import say, table
from leadline.server.serving.engine import MAX_BATCH, Engine, load_engine

BATCHES = (1, 8, 32, 128, 256)
WIRE_BATCH = 256
WIRE_IN_FLIGHT = (1, 4)

_TOLERANCE = 1e-3


@dataclass
class EngineFigures:
    """Images a second, a value for each round."""

    in_process: dict[int, list[float]] = field(default_factory=dict)
    """By images a call."""

    over_the_wire: dict[int, list[float]] = field(default_factory=dict)
    """By requests in flight, each of 256 images."""


def measure_engine(trained: Trained, plan: Plan) -> EngineFigures:
    """Each round first the engine at every size, then the server with 256 images a request.

    Both have the same core to themselves, and one thread that computes.

    Raises:
        WrongAnswerError: an answer is wrong.
        ServerError: Leadline does not start.
    """
    figures = EngineFigures()
    stay_on(LOAD_CORE)
    engine = load_engine(trained.folder, trained.epoch, device="cpu", threads=1)
    with running(["leadline"], trained) as (server,), _thread_on(SERVER_CORE) as thread:
        for _ in range(plan.rounds):
            for batch in BATCHES:
                rate = thread.submit(_rate, engine, trained, batch, plan.seconds).result()
                figures.in_process.setdefault(batch, []).append(rate)
                say(f"in process, {batch:>3} images: {rate:,.0f} images/s")
            for in_flight in WIRE_IN_FLIGHT:
                point = Point(WIRE_BATCH, in_flight)
                sample = measure(server, point, questions(trained, point), plan)
                rate = sample.load.per_second * WIRE_BATCH
                figures.over_the_wire.setdefault(in_flight, []).append(rate)
                say(f"over the wire, {in_flight} in flight: {rate:,.0f} images/s")
    return figures


def report(figures: EngineFigures) -> str:
    """Both tables: images a second, and how much of it is left over the wire."""
    engine = [
        [str(batch), Spread.of(rates).text(), Spread.of([1e6 / rate for rate in rates]).text(1)]
        for batch, rates in figures.in_process.items()
    ]
    whole = figures.in_process[WIRE_BATCH]
    wire = [
        [
            str(in_flight),
            Spread.of(rates).text(),
            Spread.of_ratios([100 * rate for rate in rates], whole).text(1),
        ]
        for in_flight, rates in figures.over_the_wire.items()
    ]
    return (
        table(("images, in process", "images/s", "microseconds an image"), engine)
        + f"\nRequests of {WIRE_BATCH} images over the wire:\n\n"
        + table(("in flight", "images/s", "% of the engine's (bar: 90)"), wire)
    )


def as_json(figures: EngineFigures) -> dict[str, Any]:
    """Every round."""
    return {"engine": {"in_process": figures.in_process, "over_the_wire": figures.over_the_wire}}


def _rate(engine: Engine, trained: Trained, batch: int, seconds: float) -> float:
    """Images a second when so many are asked about at a time."""
    images = draw_images(batch)
    if not np.allclose(_score(engine, images), trained.logits(images), atol=_TOLERANCE):
        raise WrongAnswerError("the engine's logits are not those of torch")
    done, began = 0, time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        _score(engine, images)
        done += batch
    return done / passed


def _score(engine: Engine, images: Images) -> Images:
    # In the batches that the server makes of a large request.
    parts = [
        engine.score([images[start : start + MAX_BATCH]]).logits
        for start in range(0, len(images), MAX_BATCH)
    ]
    return np.concatenate(parts)


@contextmanager
def _thread_on(core: int) -> Iterator[ThreadPoolExecutor]:
    """A thread that has a core, whatever core the others of this process have."""
    with ThreadPoolExecutor(1, initializer=os.sched_setaffinity, initargs=(0, {core})) as thread:
        yield thread
