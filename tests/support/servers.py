"""A small dataset, and real servers on real sockets."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from leadline.client import Client
from leadline.models.images import decode_image, encode_png

CLASSES = ("ant", "bee", "cow", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay")
TRAIN_PER_CLASS = 40
TEST_PER_CLASS = 20

# A prefix for commands, because an interrupted run ends its processes without their fixtures.
END_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM")

# The options of a server for `occupied`.
TO_BE_OCCUPIED = ("--spare-workers", "0", "--worker-silence-seconds", "86400")

_START_SECONDS = 120


def make_dataset(root: Path) -> Path:
    """Creates a folder of images whose classes differ in colour and stripes, under noise.

    Those of the second class are twice as wide as high.
    """
    random = np.random.default_rng(7)
    for split, count in (("train", TRAIN_PER_CLASS), ("test", TEST_PER_CLASS)):
        for index, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number:04d}.png").write_bytes(_draw(index, random))
    return root


def _draw(index: int, random: np.random.Generator) -> bytes:
    rows = np.arange(32)[:, None, None]
    columns = np.arange(32)[None, :, None]
    along = rows if index % 2 else columns
    stripes = ((along + random.integers(8)) // (1 + index // 2)) % 2
    colour = np.array([index * 25, 255 - index * 25, (index * 70) % 255])
    noise = random.normal(0, 60, (32, 32, 3))
    pixels = np.clip(colour * (0.4 + 0.6 * stripes) + noise, 0, 255).astype(np.uint8)
    return encode_png(pixels if index != 1 else pixels.repeat(2, axis=1))


def read_images(paths: Sequence[Path]) -> NDArray[np.uint8]:
    """Returns the images of a dataset as the server reads them, uint8 [N, 32, 32, 3]."""
    return np.stack([decode_image(path.read_bytes()) for path in paths])


@dataclass
class LiveServer:
    """A `leadline serve` process."""

    process: subprocess.Popen[bytes]
    target: str
    metrics_url: str
    data_dir: Path
    log: Path

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal, and returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


ServerFactory = Callable[..., LiveServer]


class ServerNeverCameError(Exception):
    """A server did not become ready; the message has the end of its log."""


class Launcher:
    """Starts server processes that keep their data, their log and their ready file in one folder.

    Attributes:
        data_dir: their data directory.
        log: their common log.
    """

    def __init__(
        self,
        folder: Path,
        *flags: str,
        module: str = "leadline.server.main",
        environment: dict[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        """Prepares a command line; `wrapper` is a prefix that runs another command."""
        folder.mkdir(parents=True, exist_ok=True)
        self.data_dir, self.log = folder / "data", folder / "server.log"
        self._ready = folder / "ready.json"
        self._environment = {**os.environ, **(environment or {})}
        self._command = [
            *wrapper,
            *END_WITH_PARENT,
            *(sys.executable, "-W", "error", "-m", module),
            *("--metrics-port", "0", "--worker-threads", "1"),
            *("--data-dir", str(self.data_dir), "--ready-file", str(self._ready)),
            *flags,
        ]

    def spawn(self, *flags: str) -> subprocess.Popen[bytes]:
        """Starts a server without waiting for it."""
        self._ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            return subprocess.Popen([*self._command, *flags], stderr=log, env=self._environment)

    def wait_ready(self, process: subprocess.Popen[bytes]) -> LiveServer:
        """Waits until the server serves.

        Raises:
            ServerNeverCameError: the server exited, or took too long.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerNeverCameError(f"status {process.poll()}:\n{self.last_words()}")
            time.sleep(0.01)
        reached = json.loads(self._ready.read_text())
        return LiveServer(
            process, reached["target"], reached["metrics_url"], self.data_dir, self.log
        )

    def last_words(self) -> str:
        """Returns the end of the log."""
        return self.log.read_text()[-4_000:]


@contextmanager
def occupied(server: LiveServer) -> Iterator[None]:
    """Keeps the server's only device busy with a job on `tiny`, so submitted jobs wait.

    The server has the options `TO_BE_OCCUPIED`. The job's worker is stopped as with Ctrl-Z, so that
    it uses no CPU time.
    """
    with Client(server.target) as client:
        job = client.train(dataset="tiny", epochs=10_000)
        # Not earlier: a worker that never becomes ready counts as lost.
        next(event for event in job.events() if event.HasField("started"))
        job.detach()
    module = "leadline.server.workers.process"
    children = psutil.Process(server.process.pid).children()
    (worker,) = [child for child in children if module in child.cmdline()]
    worker.suspend()
    yield
    worker.kill()  # SIGTERM would first need SIGCONT


def start_server(folder: Path, *flags: str, **options: Any) -> LiveServer:
    """Starts a server that keeps its data in `folder`, and waits until it serves.

    The options are those of a `Launcher`.
    """
    launcher = Launcher(folder, "--port", "0", *flags, **options)
    process = launcher.spawn()
    try:
        return launcher.wait_ready(process)
    except ServerNeverCameError as error:
        process.kill()
        pytest.fail(f"the server did not start: {error}")
