"""Measures the cost of a call on each transport: `python benchmarks/transports.py`.

With `--secure` it measures the cost of TLS and of a token, for an empty call and a prediction.

It starts `leadline serve` with each transport, and h2load calls its health check: the cost of a
call without the work of a method. The rounds of the transports alternate. The server has one core
and h2load another. The CPU time is that of the server process.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness import secure
from harness.h2load import Load, run_h2load
from harness.processes import ServerProcess
from harness.tables import machine, table

_TRANSPORTS = ("h2corn", "grpcio")
_IN_FLIGHT = (1, 32)
_PATH = "/grpc.health.v1.Health/Check"
_SERVER_CORE, _CLIENT_CORE = 0, 1


@dataclass(frozen=True)
class _Server:
    """A server to measure."""

    name: str
    target: str
    process: psutil.Process

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of its process, without its workers."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def main(arguments: Sequence[str]) -> None:
    """Measures and prints a table in Markdown."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="leadline-transports-") as folder, ExitStack() as stack:
        if options.secure:
            text = secure.measure(Path(folder), seconds=options.seconds, rounds=options.rounds)
        else:
            servers = [_start(Path(folder), name, stack.callback) for name in _TRANSPORTS]
            for other in options.beside:
                name, target, pid = other.split(",")
                servers.append(_Server(name, target, psutil.Process(int(pid))))
            rows = _measure(servers, seconds=options.seconds, rounds=options.rounds)
            text = table(("transport", "in flight", "calls a second", "CPU of a call, us"), rows)
    sys.stdout.write(f"{text}\n{machine()}\n")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3, help="duration of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--secure", action="store_true", help="the cost of TLS and of a token")
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="NAME,HOST:PORT,PID",
        help="a further server, started with `setsid taskset --cpu-list 0`",
    )
    return parser.parse_args(arguments)


def _start(
    folder: Path, transport: str, at_exit: Callable[[Callable[[], None]], object]
) -> _Server:
    ready = folder / f"{transport}.json"
    process = ServerProcess(
        [
            *(sys.executable, "-m", "leadline.server.main", "--port=0", "--metrics-port=0"),
            *("--spare-workers=0", f"--transport={transport}"),
            *(f"--data-dir={folder / transport}", f"--ready-file={ready}"),
        ],
        log=folder / f"{transport}.log",
        core=_SERVER_CORE,
    )
    at_exit(process.stop)
    process.wait_until(ready.exists)
    target: str = json.loads(ready.read_text())["target"]
    return _Server(transport, target, psutil.Process(process.pid))


def _measure(servers: list[_Server], *, seconds: float, rounds: int) -> list[Sequence[str]]:
    rates = defaultdict(list)
    answered: Counter[tuple[str, int]] = Counter()
    computed: defaultdict[tuple[str, int], float] = defaultdict(float)
    for _ in range(rounds):
        for in_flight in _IN_FLIGHT:
            load = Load(in_flight=in_flight, connections=1, seconds=seconds, warm_up_seconds=0)
            for server in servers:
                before = server.cpu_seconds
                result = run_h2load(server.target, _PATH, b"", load, core=_CLIENT_CORE)
                rates[server.name, in_flight].append(result.per_second)
                answered[server.name, in_flight] += result.succeeded
                computed[server.name, in_flight] += server.cpu_seconds - before
    return [
        (
            name,
            str(in_flight),
            f"{statistics.median(measured):,.0f} ({min(measured):,.0f} to {max(measured):,.0f})",
            f"{computed[name, in_flight] / answered[name, in_flight] * 1e6:.0f}",
        )
        for (name, in_flight), measured in rates.items()
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
