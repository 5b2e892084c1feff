"""The base class of all servers: start, readiness, counts."""

import re
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import psutil

from harness.checks import Counts
from harness.infer import is_ready
from harness.models import Trained
from harness.processes import ServerProcess, free_port

_SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)(?: \d+)?$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class PeerMissingError(Exception):
    """A peer is not installed; the message says how to install it."""


class Server(ABC):
    """A server that answers ModelInfer for the trained model.

    Attributes:
        name: its name in tables.
        target: the host and port of its gRPC service.
    """

    def __init__(
        self,
        name: str,
        trained: Trained,
        folder: Path,
        *,
        core: int | None,
        flags: Sequence[str] = (),
    ) -> None:
        """Starts the server.

        Args:
            name: its name in tables.
            trained: the model to serve.
            folder: a new folder for its settings and its log.
            core: the only core that it may use; None for all cores.
            flags: additional options.
        """
        self.name = name
        self._trained = trained
        self._folder = folder
        self._core = core
        self._flags = flags
        folder.mkdir(parents=True)
        self._port, self._metrics_port = free_port(), free_port()
        self.target = f"127.0.0.1:{self._port}"
        self._process = self._start()

    @classmethod
    @abstractmethod
    def check_installed(cls) -> None:
        """Checks early whether the server is installed.

        Raises:
            PeerMissingError: the server is not installed.
        """

    @abstractmethod
    def _start(self) -> ServerProcess:
        """Starts the process."""

    @abstractmethod
    def counts(self) -> Counts:
        """Returns the completed calls of ModelInfer, from the server's own metrics."""

    def cpu_seconds(self) -> float:
        """Returns the CPU time of the server and its children since their start."""
        server = psutil.Process(self._process.pid)
        times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
        return float(sum(cpu.user + cpu.system for cpu in times))

    def wait_ready(self) -> None:
        """Waits until the model answers.

        Raises:
            ServerError: the server exited, or is not ready after two minutes.
        """
        self._process.wait_until(lambda: is_ready(self.target, self._trained.model))

    def stop(self) -> None:
        """Stops the server and its children."""
        self._process.stop()

    def total(self, metric: str, **labels: str) -> float:
        """Returns the sum of a metric's series with these labels, or 0 without any."""
        url = f"http://127.0.0.1:{self._metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as response:
            return total(response.read().decode(), metric, **labels)

    def _run(self, *command: str, environment: dict[str, str] | None = None) -> ServerProcess:
        return ServerProcess(
            [*command, *self._flags],
            log=self._folder / "log",
            core=self._core,
            folder=self._folder,
            environment=environment,
        )


def total(metrics: str, metric: str, **labels: str) -> float:
    """Returns the sum of a metric's series with these labels, or 0 without any.

    Args:
        metrics: metrics in Prometheus's text format.
        metric: the full name of the metric.
        labels: the labels that a series must have; it may have more.
    """
    summed = 0.0
    for line in metrics.splitlines():
        sample = _SAMPLE.match(line)
        if sample is None or sample["name"] != metric:
            continue
        if labels.items() <= dict(_LABEL.findall(sample["labels"] or "")).items():
            summed += float(sample["value"])
    return summed
