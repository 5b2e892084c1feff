"""Generates load with h2load, which needs a tenth of the CPU time of a Python client.

h2load supports HTTP/2, but not gRPC. A request is a POST with a framed gRPC message. The gRPC
status is in the trailers, which h2load does not show; `harness.checks` verifies it.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.stats import Times, percentile

_REQUESTS = re.compile(
    r"^requests: (?P<total>\d+) total, (?P<started>\d+) started, (?P<done>\d+) done, "
    r"(?P<succeeded>\d+) succeeded, (?P<failed>\d+) failed, (?P<errored>\d+) errored, "
    r"(?P<timeout>\d+) timeout$",
    re.MULTILINE,
)
_DATA = re.compile(r"^traffic: .*, \S+ \((?P<data>\d+)\) data$", re.MULTILINE)

_OK = 200


class LoadError(Exception):
    """h2load could not generate the load; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """The load to generate."""

    in_flight: int
    """The total number of requests in flight."""

    connections: int
    """The number of connections that share them."""

    seconds: float
    """The duration of the measurement."""

    warm_up_seconds: float = 1.0
    """The duration of the warm-up before it."""

    def __post_init__(self) -> None:
        if self.in_flight % self.connections:
            raise LoadError(
                f"{self.in_flight} in flight cannot be spread evenly over "
                f"{self.connections} connections"
            )


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """The result of a measurement."""

    succeeded: int
    """Responses with HTTP status 200 during the measurement."""

    failed: int
    """Requests without such a response."""

    data_bytes: int
    """The bytes of all response bodies, including the warm-up."""

    seconds: float
    """The duration of the measurement."""

    latencies: Times
    """The latency of each successful request in milliseconds, float64 [succeeded]."""

    @property
    def per_second(self) -> float:
        """Successful requests per second."""
        return self.succeeded / self.seconds

    def latency(self, percent: float) -> float:
        """Returns a percentile of the latency in milliseconds."""
        return percentile(self.latencies, percent)


def require_h2load() -> str:
    """Returns the path of h2load.

    Raises:
        LoadError: h2load is not installed.
    """
    program = shutil.which("h2load")
    if program is None:
        raise LoadError("h2load is missing; on Debian: apt-get install nghttp2-client")
    return program


def frame(message: bytes) -> bytes:
    """Returns a gRPC frame: a zero byte for no compression, the length in four bytes, the message.

    Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
    """
    return b"\0" + len(message).to_bytes(4, "big") + message


def run_h2load(
    target: str,
    path: str,
    message: bytes,
    load: Load,
    *,
    core: int | None,
    niceness: int = 0,
    headers: Sequence[str] = (),
) -> LoadResult:
    """Calls one unary method repeatedly with the same message.

    Args:
        target: the host and port of the server, after https:// if it has TLS.
        path: the path of the method, "/package.Service/Method".
        message: the serialized request.
        load: the load to generate.
        core: the core for h2load; None for all.
        niceness: the nice value of h2load, up to 19.
        headers: more headers of each request.

    Raises:
        LoadError: h2load is missing, fails, or prints something unexpected.
    """
    with tempfile.TemporaryDirectory(prefix="leadline-load-") as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(frame(message))
        pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
        url = (target if "://" in target else f"http://{target}") + path
        command = _command(url, body, log, load, headers)
        done = subprocess.run(
            [*pinned, "nice", "-n", str(niceness), *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=60 + 2 * (load.seconds + load.warm_up_seconds),
        )
        if done.returncode:
            raise LoadError(f"h2load ended with {done.returncode}: {done.stderr or done.stdout}")
        return parse(done.stdout, log.read_text(), load)


def parse(summary: str, log: str, load: Load) -> LoadResult:
    """Parses h2load's output and its log of requests.

    Args:
        summary: its standard output.
        log: a line per request: its start in microseconds since the Unix epoch, its HTTP status,
            and its duration in microseconds.
        load: the load that h2load generated.

    Raises:
        LoadError: the format is unexpected, or the counts differ.
    """
    requests, data = _REQUESTS.search(summary), _DATA.search(summary)
    if requests is None or data is None:
        raise LoadError(f"h2load printed an unknown summary:\n{summary}")
    statuses, latencies = _columns(log)
    answered = latencies[statuses == _OK] / 1000
    succeeded = int(requests["succeeded"])
    # Requests in flight at the end of the warm-up may be in only one of the two.
    if abs(len(answered) - succeeded) > load.in_flight:
        raise LoadError(f"h2load counts {succeeded} answers, but logs {len(answered)}")
    failed = sum(int(requests[name]) for name in ("failed", "errored", "timeout"))
    return LoadResult(
        succeeded=succeeded,
        failed=failed,
        data_bytes=int(data["data"]),
        seconds=load.seconds,
        latencies=answered,
    )


def _columns(log: str) -> tuple[Times, Times]:
    try:
        values = np.array([line.split("\t") for line in log.splitlines()], dtype=np.float64)
        rows = values.reshape(-1, 3)
    except ValueError as error:
        raise LoadError(f"h2load's log has a line without three numbers: {error}") from error
    return rows[:, 1], rows[:, 2]


def _command(url: str, body: Path, log: Path, load: Load, headers: Sequence[str]) -> list[str]:
    fields = ("content-type: application/grpc", "te: trailers", *headers)
    return [
        require_h2load(),
        *("--clients", str(load.connections)),
        *("--max-concurrent-streams", str(load.in_flight // load.connections)),
        *("--duration", f"{load.seconds * 1000:.0f}ms"),
        *("--warm-up-time", f"{load.warm_up_seconds * 1000:.0f}ms"),
        *("--threads", "1"),
        *("--data", str(body)),
        *("--log-file", str(log)),
        *(f"--header={field}" for field in fields),
        url,
    ]
