"""h2load as the generator of load: it costs a tenth of what a Python client does.

It knows HTTP/2 and nothing of gRPC. A request is a POST whose body is a gRPC
message in its frame; the status that matters stands in trailers, which h2load
does not show. `checks` finds it out otherwise.
"""

import re
import shutil
import subprocess
import tempfile
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
    """The load could not be generated: the message says why."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """How hard to press."""

    in_flight: int
    """Requests at a time, in all."""

    connections: int
    """What they are spread over."""

    seconds: float
    """How long it counts."""

    warm_up_seconds: float = 1.0
    """How long it runs before it counts."""

    def __post_init__(self) -> None:
        if self.in_flight % self.connections:
            raise LoadError(
                f"{self.in_flight} in flight cannot be spread evenly over "
                f"{self.connections} connections"
            )


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """What came of it."""

    succeeded: int
    """Answers with the HTTP status 200, while it counted."""

    failed: int
    """Requests without such an answer."""

    data_bytes: int
    """Of all answers' bodies, those of the warm-up too."""

    seconds: float
    """How long it counted."""

    latencies: Times
    """Milliseconds of each answered request, float64 [succeeded]."""

    @property
    def per_second(self) -> float:
        """Requests answered a second."""
        return self.succeeded / self.seconds

    def latency(self, percent: float) -> float:
        """A percentile of the latency, in milliseconds."""
        return percentile(self.latencies, percent)


def require_h2load() -> str:
    """Where h2load is.

    Raises:
        LoadError: it is not installed.
    """
    program = shutil.which("h2load")
    if program is None:
        raise LoadError("h2load is missing; on Debian: apt-get install nghttp2-client")
    return program


def frame(message: bytes) -> bytes:
    """A message as gRPC frames it: a byte for no compression, four of its length, itself.

    Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
    """
    return b"\0" + len(message).to_bytes(4, "big") + message


def run_h2load(
    target: str, path: str, message: bytes, load: Load, *, core: int | None, niceness: int = 0
) -> LoadResult:
    """Calls one unary method with one message, over and over.

    Args:
        target: host and port of the server.
        path: of the method, "/package.Service/Method".
        message: the request, serialised.
        load: how hard.
        core: which core h2load may use; None for all.
        niceness: its nice value, up to 19.

    Raises:
        LoadError: h2load is missing, fails, or says something unexpected.
    """
    with tempfile.TemporaryDirectory(prefix="leadline-load-") as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(frame(message))
        pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
        command = _command(f"http://{target}{path}", body, log, load)
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
    """Reads what h2load printed, and its log of requests.

    Args:
        summary: its standard output.
        log: a line for each request: when it began in microseconds of the
            epoch, its HTTP status, and how many microseconds it took.
        load: what it was told to do.

    Raises:
        LoadError: the two do not look or do not count as expected.
    """
    requests, data = _REQUESTS.search(summary), _DATA.search(summary)
    if requests is None or data is None:
        raise LoadError(f"h2load printed no summary that is known here:\n{summary}")
    statuses, latencies = _columns(log)
    answered = latencies[statuses == _OK] / 1000
    succeeded = int(requests["succeeded"])
    # What was in flight when it began to count may be in the one and not in the other.
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
        raise LoadError(f"h2load's log has lines of other than three numbers: {error}") from error
    return rows[:, 1], rows[:, 2]


def _command(url: str, body: Path, log: Path, load: Load) -> list[str]:
    return [
        require_h2load(),
        *("--clients", str(load.connections)),
        *("--max-concurrent-streams", str(load.in_flight // load.connections)),
        *("--duration", f"{load.seconds * 1000:.0f}ms"),
        *("--warm-up-time", f"{load.warm_up_seconds * 1000:.0f}ms"),
        *("--threads", "1"),
        *("--data", str(body)),
        *("--log-file", str(log)),
        *("--header", "content-type: application/grpc"),
        *("--header", "te: trailers"),
        url,
    ]
