"""The cost of TLS and of a token: CPU time of a call, on each transport.

A machine of two cores has none left for the load, so requests a second say little here. The
server of each kind has one core, and the load the other. Rounds alternate between the kinds.
"""

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import psutil

from harness.h2load import Load, LoadResult, run_h2load
from harness.infer import MODEL_INFER, request
from harness.models import draw_images
from harness.processes import ServerProcess
from harness.stats import Spread
from harness.tables import say, table
from leadline.client import Client
from leadline.server.access.tokens import create_token

_TRANSPORTS = ("h2corn", "grpcio")
_KINDS = ("plain text", "TLS", "TLS and a token")
_IN_FLIGHT, _CONNECTIONS = 32, 4
_WARM_UP_SECONDS = 5.0
_EMPTY = "/grpc.health.v1.Health/Check"
_CERTIFICATES = Path(__file__).parents[2] / "deploy" / "certificates.sh"


@dataclass(frozen=True)
class _Server:
    """A server of one kind."""

    target: str
    headers: Sequence[str]
    process: psutil.Process

    def cpu_of_a_call(self, path: str, message: bytes, seconds: float) -> float:
        """Microseconds of CPU time that the server takes for a call, under load."""
        before = self._cpu_seconds()
        result = self.load(path, message, seconds)
        return 1e6 * (self._cpu_seconds() - before) / result.succeeded

    def load(self, path: str, message: bytes, seconds: float) -> LoadResult:
        """Calls a method for a time."""
        load = Load(
            in_flight=_IN_FLIGHT, connections=_CONNECTIONS, seconds=seconds, warm_up_seconds=0
        )
        return run_h2load(self.target, path, message, load, core=1, headers=self.headers)

    def _cpu_seconds(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


def measure(folder: Path, *, seconds: float, rounds: int) -> str:
    """Measures each kind on each transport; returns the table in Markdown."""
    subprocess.run([_CERTIFICATES, folder / "tls"], check=True)
    rows = []
    model = _train(folder / "data")
    calls = {
        "an empty call": (_EMPTY, b""),
        "a prediction": (MODEL_INFER, request(model, draw_images(1))),
    }
    for transport in _TRANSPORTS:
        costs: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        with ExitStack() as stack:
            servers = {
                kind: stack.enter_context(_serve(folder, transport, kind, calls.values()))
                for kind in _KINDS
            }
            for number, call, kind in product(range(1, rounds + 1), calls, _KINDS):
                cost = servers[kind].cpu_of_a_call(*calls[call], seconds)
                costs[call, kind].append(cost)
                say(f"round {number}, {transport}, {call}, {kind}: {cost:.1f} us")
        for (call, kind), measured in costs.items():
            ratio = Spread.of_ratios(measured, costs[call, _KINDS[0]])
            rows.append((transport, call, kind, Spread.of(measured).text(1), ratio.text(2)))
    heads = ("transport", "call", "kind", "CPU of a call, us", "of plain text")
    return table(heads, rows)


def _train(data: Path) -> str:
    """Trains a model in a data directory; returns its name in the Open Inference Protocol."""
    with _run(data, data.with_suffix(".ready"), core=None) as (target, _), Client(target) as client:
        job = client.train(dataset="synthetic", epochs=1, blocks=10, batch_norm=True)
        job.result()
        return job.name.removeprefix("jobs/")


@contextmanager
def _serve(
    folder: Path, transport: str, kind: str, calls: Iterable[tuple[str, bytes]]
) -> Iterator[_Server]:
    place = folder / f"{transport}-{_KINDS.index(kind)}"
    shutil.copytree(folder / "data", place)
    flags, headers = [f"--transport={transport}"], []
    if kind != _KINDS[0]:
        tls = folder / "tls"
        flags += [f"--tls-cert={tls / 'server.pem'}", f"--tls-key={tls / 'server.key'}"]
    if kind == _KINDS[2]:
        secret, _ = create_token(place / "tokens.json", name="load", role="predictor")
        headers = [f"authorization: Bearer {secret}"]
    with _run(place, place.with_suffix(".ready"), *flags, core=0) as (target, process):
        scheme = "http" if kind == _KINDS[0] else "https"
        server = _Server(f"{scheme}://{target}", headers, process)
        for path, message in calls:  # the first calls load the network
            server.load(path, message, _WARM_UP_SECONDS)
        yield server


@contextmanager
def _run(
    data: Path, ready: Path, *flags: str, core: int | None
) -> Iterator[tuple[str, psutil.Process]]:
    process = ServerProcess(
        [
            *(sys.executable, "-m", "leadline.server.main", "--port=0", "--metrics-port=0"),
            *("--spare-workers=0", f"--data-dir={data}", f"--ready-file={ready}", *flags),
        ],
        log=ready.with_suffix(".log"),
        core=core,
    )
    try:
        process.wait_until(ready.exists)
        yield json.loads(ready.read_text())["target"], psutil.Process(process.pid)
    finally:
        process.stop()
