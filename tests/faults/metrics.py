"""What a server says of itself, and what the kernel says of it."""

import contextlib
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def open_calls(metrics_url: str, method: str = "") -> int:
    """RPCs that have begun and not ended, of one method or of all."""
    balance = 0.0
    for sample in _samples(metrics_url):
        if method in ("", sample.labels.get("grpc_method")):
            if sample.name == "grpc_server_started_total":
                balance += sample.value
            elif sample.name == "grpc_server_handled_total":
                balance -= sample.value
    return round(balance)


def calls_by_code(metrics_url: str, method: str) -> Counter[str]:
    """RPCs of a method that have ended, by the label of their status."""
    return Counter(
        {
            sample.labels["grpc_code"]: round(sample.value)
            for sample in _samples(metrics_url)
            if sample.name == "grpc_server_handled_total" and sample.labels["grpc_method"] == method
        }
    )


def begun_calls(metrics_url: str) -> int:
    """RPCs that have begun."""
    return round(
        sum(
            sample.value
            for sample in _samples(metrics_url)
            if sample.name == "grpc_server_started_total"
        )
    )


def file_descriptors(pid: int) -> Counter[str]:
    """Files, sockets and pipes that a process has open, by what they are."""
    kinds: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            kinds[link.readlink().name.partition(":")[0]] += 1
    return kinds


def threads(pid: int) -> int:
    """Threads of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


def _samples(metrics_url: str) -> Iterator[Sample]:
    with urllib.request.urlopen(metrics_url, timeout=30) as response:  # noqa: S310 - our own
        text = response.read().decode()
    for family in text_string_to_metric_families(text):
        yield from family.samples
