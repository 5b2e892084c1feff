"""Measures whole epochs of the notebook's loop and of Leadline's worker, alternating."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from harness.models import serves
from harness.processes import ServerProcess, free_port
from harness.tables import say
from leadline.client import Client

_FOLDER = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The cost of an epoch, including both its evaluations."""

    seconds: float
    test_accuracy: float
    peak_memory: int = 0
    """The peak resident memory of the process in bytes; 0 if not measured."""


class NotebookLoop:
    """The notebook's loop, in a separate process."""

    def __init__(self, cache: Path, fingerprint: str, *, blocks: int, batch_norm: bool) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "harness.notebook", str(cache), fingerprint),
                *("--blocks", str(blocks), *(["--batch-norm"] if batch_norm else [])),
            ],
            cwd=_FOLDER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def epoch(self) -> Epoch:
        """Trains the next epoch.

        Raises:
            RuntimeError: the loop has ended; its standard error says why.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the notebook's loop has no pipes")
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the notebook's loop ended with {self._process.wait()}")
        report = json.loads(line)
        return Epoch(seconds=report["seconds"], test_accuracy=report["accuracies"][1])

    def close(self) -> None:
        """Stops the process."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def notebook(cache: Path, fingerprint: str, *, blocks: int, batch_norm: bool) -> Iterator[Any]:
    """Yields the running loop."""
    loop = NotebookLoop(cache, fingerprint, blocks=blocks, batch_norm=batch_norm)
    try:
        yield loop
    finally:
        loop.close()


@dataclass(frozen=True)
class Service:
    """A Leadline server that trains."""

    client: Client
    process: ServerProcess

    def epochs(self, count: int, **spec: Any) -> list[Epoch]:
        """Trains a job of `count` epochs after a first one that does not count.

        The time of an epoch is the interval between two epoch events. It includes the checkpoint
        and all other work between two epochs.
        """
        times, accuracies, peak = [], [], 0
        job = self.client.train(epochs=count + 1, **spec)
        for event in job.events():
            if event.HasField("epoch"):
                times.append(event.create_time.ToNanoseconds() / 1e9)
                accuracies.append(event.epoch.test_accuracy)
                peak = max(peak, self._largest_worker())
        job.result()
        return [
            Epoch(seconds=end - start, test_accuracy=accuracy, peak_memory=peak)
            for (start, end), accuracy in zip(
                itertools.pairwise(times), accuracies[1:], strict=True
            )
        ]

    def _largest_worker(self) -> int:
        peaks = [0]
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                status = Path(f"/proc/{child.pid}/status").read_text()
            except FileNotFoundError:  # the worker has exited
                continue
            fields = dict(line.split(":", 1) for line in status.splitlines())
            peaks.append(1024 * int(fields.get("VmHWM", "0 kB").split()[0]))
        return max(peaks)


@contextmanager
def service(folder: Path, dataset: str, *options: str) -> Iterator[Service]:
    """Yields a server with default options; its dataset `measured` is the given source."""
    port = free_port()
    process = ServerProcess(
        [
            *(sys.executable, "-m", "leadline.server.main", "--data-dir", str(folder)),
            *("--port", str(port), "--metrics-port", "0", "--log-level", "warning"),
            *("--dataset", f"measured={dataset}", *options),
        ],
        log=folder.parent / "server.log",
        core=None,
    )
    try:
        with Client(f"127.0.0.1:{port}") as client:
            process.wait_until(lambda: serves(client))
            yield Service(client, process)
    finally:
        process.stop()


def rounds(loops: Sequence[tuple[str, Any]], count: int) -> dict[str, list[Epoch]]:
    """Trains both in turn, `count` times."""
    results: dict[str, list[Epoch]] = {name: [] for name, _ in loops}
    for number in range(1, count + 1):
        for name, epochs in loops:
            for epoch in epochs():
                results[name].append(epoch)
                say(f"round {number}, {name}: {epoch.seconds:.2f} s")
    return results
