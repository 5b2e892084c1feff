"""Readings of a server's metrics, and of the kernel's data about it."""

import contextlib
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def open_calls(metrics_url: str, method: str = "") -> int:
    """Returns the number of open RPCs, of one method or of all."""
    balance = 0.0
    for sample in _samples(metrics_url):
        if method in ("", sample.labels.get("grpc_method")):
            if sample.name == "grpc_server_started_total":
                balance += sample.value
            elif sample.name == "grpc_server_handled_total":
                balance -= sample.value
    return round(balance)


def calls_by_code(metrics_url: str, method: str) -> Counter[str]:
    """Returns the number of ended RPCs of a method by their status label."""
    return Counter(
        {
            sample.labels["grpc_code"]: round(sample.value)
            for sample in _samples(metrics_url)
            if sample.name == "grpc_server_handled_total" and sample.labels["grpc_method"] == method
        }
    )


def begun_calls(metrics_url: str) -> int:
    """Returns the number of started RPCs."""
    return round(
        sum(
            sample.value
            for sample in _samples(metrics_url)
            if sample.name == "grpc_server_started_total"
        )
    )


def file_descriptors(pid: int) -> Counter[str]:
    """Returns the open files, sockets and pipes of a process by their targets."""
    kinds: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            kinds[link.readlink().name.partition(":")[0]] += 1
    return kinds


def threads(pid: int) -> int:
    """Returns the number of threads of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


def _samples(metrics_url: str) -> Iterator[Sample]:
    with urllib.request.urlopen(metrics_url, timeout=30) as response:  # noqa: S310 - our own
        text = response.read().decode()
    for family in text_string_to_metric_families(text):
        yield from family.samples
