"""The metrics of several processes as those of one."""

import json
from collections.abc import Iterable

import pytest
from prometheus_client import Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import CollectorRegistry

from leadline.server.telemetry.processes import SummedRegistry, snapshot


class Process:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("calls", "Calls.", ("method",), registry=self.registry)
        self.seconds = Histogram("seconds", "Time.", buckets=(1, 2), registry=self.registry)
        self.pending = Gauge("leadline_predictions_in_flight", "Now.", registry=self.registry)
        self.jobs = Gauge("leadline_jobs", "Jobs.", registry=self.registry)

    def taken(self) -> dict[str, list[tuple[str, dict[str, str], float]]]:
        """Its snapshot, as it is sent."""
        result: dict[str, list[tuple[str, dict[str, str], float]]] = json.loads(
            json.dumps(snapshot(self.registry))
        )
        return result


@pytest.fixture
def main() -> Process:
    return Process()


@pytest.fixture
def other() -> Process:
    return Process()


@pytest.fixture
def summed(main: Process, other: Process) -> SummedRegistry:
    main.calls.labels("get").inc(2)
    other.calls.labels("get").inc(3)
    other.calls.labels("put").inc()
    main.seconds.observe(0.5)
    other.seconds.observe(1.5)
    main.pending.set(4)
    other.pending.set(5)
    main.jobs.set(6)
    registry = SummedRegistry(main.registry)
    registry.update(1, other.taken())
    return registry


def lines(registry: SummedRegistry) -> list[str]:
    text = generate_latest(registry).decode().splitlines()
    return [line for line in text if not line.startswith("#") and "_created" not in line]


def names(registry: Iterable[str]) -> set[str]:
    return {line.split("{")[0].split(" ")[0] for line in registry}


def test_counters_and_histograms_are_summed_and_gauges_of_a_process_keep_their_values(
    summed: SummedRegistry,
) -> None:
    assert lines(summed) == [
        'calls_total{method="get"} 5.0',
        'calls_total{method="put"} 1.0',
        'seconds_bucket{le="1.0"} 1.0',
        'seconds_bucket{le="2.0"} 2.0',
        'seconds_bucket{le="+Inf"} 2.0',
        "seconds_count 2.0",
        "seconds_sum 2.0",
        'leadline_predictions_in_flight{process="0"} 4.0',
        'leadline_predictions_in_flight{process="1"} 5.0',
        "leadline_jobs 6.0",
    ]


def test_no_sum_falls_when_a_process_ends_and_another_takes_its_place(
    summed: SummedRegistry,
) -> None:
    summed.end(1)
    assert 'calls_total{method="get"} 5.0' in lines(summed)
    assert 'leadline_predictions_in_flight{process="1"} 5.0' not in lines(summed)

    successor = Process()
    successor.calls.labels("get").inc(10)
    successor.pending.set(1)
    summed.update(1, successor.taken())

    assert 'calls_total{method="get"} 15.0' in lines(summed)
    assert 'leadline_predictions_in_flight{process="1"} 1.0' in lines(summed)
    summed.end(1)
    assert 'calls_total{method="get"} 15.0' in lines(summed)


def test_a_scrape_may_name_the_metrics_that_it_wants(summed: SummedRegistry) -> None:
    assert names(lines(summed.restricted_registry(["calls_total"]))) == {"calls_total"}
    assert names(lines(summed.restricted_registry(["leadline_jobs"]))) == {"leadline_jobs"}
