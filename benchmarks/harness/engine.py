"""Compares the engine in process with the same engine over the wire."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
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
from harness.infer import Images, Logits
from harness.models import Trained, draw_images
from harness.stats import Spread
from harness.tables import say, table
from leadline.server.serving.classifier import MAX_BATCH, Classifier
from leadline.server.serving.loaded import load_classifier

BATCHES = (1, 8, 32, 128, 256)
WIRE_BATCH = 256
WIRE_IN_FLIGHT = (1, 4)

# Whether requests have uint8 pixels, or float32 with four times the size.
KINDS = {"UINT8": True, "FP32": False}

_TOLERANCE = 1e-3

Rates = dict[str, dict[int, list[float]]]
"""Images per second, one value per round, by kind and by a number."""


@dataclass
class EngineFigures:
    """The results of the measurement."""

    in_process: Rates = field(default_factory=dict)
    """Images per second, by images per call."""

    over_the_wire: Rates = field(default_factory=dict)
    """Images per second, by requests in flight of 256 images each."""


def measure_engine(trained: Trained, plan: Plan) -> EngineFigures:
    """Measures in each round the engine at every size, then the server with 256 images per request.

    Both use the same core alone, and one compute thread.

    Raises:
        WrongAnswerError: a prediction is wrong.
        ServerError: Leadline does not start.
    """
    figures = EngineFigures()
    stay_on(LOAD_CORE)
    engine = load_classifier(trained.folder, trained.epoch, device="cpu", threads=1)
    with running(["leadline"], trained) as (server,), _thread_on(SERVER_CORE) as thread:
        for _, (kind, as_bytes) in product(range(plan.rounds), KINDS.items()):
            for batch in BATCHES:
                images = draw_images(batch, as_bytes=as_bytes)
                rate = thread.submit(_rate, engine, trained, images, plan.seconds).result()
                _add(figures.in_process, kind, batch, rate)
                say(f"in process, {kind:>5}, {batch:>3} images: {rate:,.0f} images/s")
            for in_flight in WIRE_IN_FLIGHT:
                point = Point(WIRE_BATCH, in_flight)
                asked = questions(trained, point, as_bytes=as_bytes)
                rate = measure(server, point, asked, plan).load.per_second * WIRE_BATCH
                _add(figures.over_the_wire, kind, in_flight, rate)
                say(f"over the wire, {kind:>5}, {in_flight} in flight: {rate:,.0f} images/s")
    return figures


def report(figures: EngineFigures) -> str:
    """Returns both tables: images per second, and the fraction that remains over the wire."""
    engine = [
        [
            kind,
            str(batch),
            Spread.of(rates).text(),
            Spread.of([1e6 / rate for rate in rates]).text(1),
        ]
        for kind, by_batch in figures.in_process.items()
        for batch, rates in by_batch.items()
    ]
    wire = [
        [
            kind,
            str(in_flight),
            Spread.of(rates).text(),
            Spread.of_ratios(
                [100 * rate for rate in rates], figures.in_process[kind][WIRE_BATCH]
            ).text(1),
        ]
        for kind, by_in_flight in figures.over_the_wire.items()
        for in_flight, rates in by_in_flight.items()
    ]
    return (
        table(("pixels", "images, in process", "images/s", "microseconds an image"), engine)
        + f"\nRequests of {WIRE_BATCH} images over the wire:\n\n"
        + table(("pixels", "in flight", "images/s", "% of the engine's (bar: 90)"), wire)
    )


def as_json(figures: EngineFigures) -> dict[str, Any]:
    """Returns every round."""
    return {"engine": {"in_process": figures.in_process, "over_the_wire": figures.over_the_wire}}


def _add(rates: Rates, kind: str, number: int, rate: float) -> None:
    rates.setdefault(kind, {}).setdefault(number, []).append(rate)


def _rate(engine: Classifier, trained: Trained, images: Images, seconds: float) -> float:
    """Returns the images per second with these images in each call."""
    if not np.allclose(_score(engine, images), trained.logits(images), atol=_TOLERANCE):
        raise WrongAnswerError("the engine's logits are not those of torch")
    done, began = 0, time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        _score(engine, images)
        done += len(images)
    return done / passed


def _score(engine: Classifier, images: Images) -> Logits:
    # The server splits a large request into the same batches.
    parts = [
        engine.score([images[start : start + MAX_BATCH]]).logits
        for start in range(0, len(images), MAX_BATCH)
    ]
    return np.concatenate(parts)


@contextmanager
def _thread_on(core: int) -> Iterator[ThreadPoolExecutor]:
    """Yields an executor of one thread, pinned to `core`."""
    with ThreadPoolExecutor(1, initializer=os.sched_setaffinity, initargs=(0, {core})) as thread:
        yield thread
