"""What every server here has in common: it is started, asked whether it is ready, and counted."""

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
    """A peer is not installed: the message says how to install it."""


class Server(ABC):
    """A server that answers ModelInfer for the trained model.

    Attributes:
        name: what it is called in tables.
        target: host and port of its gRPC port.
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
        """Starts it.

        Args:
            name: what it is called in tables.
            trained: the model that it serves.
            folder: of its own, for its settings and its log; made here.
            core: the one core that it may use; None for all.
            flags: options beside those that it always has.
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
        """Finds out early whether it can be started.

        Raises:
            PeerMissingError: it is not installed.
        """

    @abstractmethod
    def _start(self) -> ServerProcess:
        """Starts the process."""

    @abstractmethod
    def counts(self) -> Counts:
        """How many calls of ModelInfer have ended how, by the server's own metrics."""

    def cpu_seconds(self) -> float:
        """The time that it and its children have had a core since they were started."""
        server = psutil.Process(self._process.pid)
        times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
        return float(sum(cpu.user + cpu.system for cpu in times))

    def wait_ready(self) -> None:
        """Waits until the model answers.

        Raises:
            ServerError: it ended, or is not ready after two minutes.
        """
        self._process.wait_until(lambda: is_ready(self.target, self._trained.model))

    def stop(self) -> None:
        """Ends it and all that it started."""
        self._process.stop()

    def total(self, metric: str, **labels: str) -> float:
        """The sum of a metric's series that have these labels, 0 where there are none."""
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
    """The sum of a metric's series that have these labels, 0 where there are none.

    Args:
        metrics: in Prometheus's text form.
        metric: the whole name, as it stands there.
        labels: what the series must have; they may have more.
    """
    summed = 0.0
    for line in metrics.splitlines():
        sample = _SAMPLE.match(line)
        if sample is None or sample["name"] != metric:
            continue
        if labels.items() <= dict(_LABEL.findall(sample["labels"] or "")).items():
            summed += float(sample["value"])
    return summed
