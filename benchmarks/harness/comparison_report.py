"""The results of a comparison, as tables and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from harness.comparison import Figures, Measured, Point
from harness.stats import Spread
from harness.tables import table

_HEADS = ("images", "in flight", "server", "requests/s", "images/s", "p50 ms", "p99 ms", "CPU us")
_RATIO_HEADS = ("images", "in flight", "Leadline against", "requests/s", "p50", "p99", "CPU")

OURS = "leadline"


def report(figures: Figures) -> str:
    """Returns both tables: each server's medians with their ranges, and the ratios per round."""
    text = table(_HEADS, _rows(figures))
    ratios = list(_ratio_rows(figures))
    return text + ("\n" + table(_RATIO_HEADS, ratios) if ratios else "")


def as_json(figures: Figures) -> dict[str, Any]:
    """Returns every round of every measurement."""
    return {
        "comparison": [
            {**asdict(point), "server": name, **asdict(measured)}
            for point, by_server in figures.items()
            for name, measured in by_server.items()
        ]
    }


def _rows(figures: Figures) -> Iterator[list[str]]:
    for point, by_server in figures.items():
        for name, measured in by_server.items():
            images = [rate * point.batch for rate in measured.per_second]
            yield [
                *_point(point),
                name,
                Spread.of(measured.per_second).text(),
                Spread.of(images).text(),
                Spread.of(measured.p50).text(2),
                Spread.of(measured.p99).text(2),
                Spread.of(measured.cpu).text(),
            ]


def _ratio_rows(figures: Figures) -> Iterator[list[str]]:
    for point, by_server in figures.items():
        if OURS not in by_server:
            continue
        for name, theirs in by_server.items():
            if name != OURS:
                yield [*_point(point), name, *_ratios(by_server[OURS], theirs)]


def _ratios(ours: Measured, theirs: Measured) -> list[str]:
    pairs = (
        (ours.per_second, theirs.per_second),
        (ours.p50, theirs.p50),
        (ours.p99, theirs.p99),
        (ours.cpu, theirs.cpu),
    )
    return [Spread.of_ratios(one, other).text(2) for one, other in pairs]


def _point(point: Point) -> list[str]:
    return [str(point.batch), str(point.in_flight)]
