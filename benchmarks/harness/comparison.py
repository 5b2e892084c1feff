"""The comparison: in each round, every server is measured at every point."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.checks import Question, check_answers, check_load
from harness.h2load import Load, LoadResult, run_h2load
from harness.infer import MODEL_INFER, request
from harness.leadline import LeadlineServer
from harness.mlserver import BatchingMLServer, MLServer
from harness.models import Trained, draw_images
from harness.servers import Server
from harness.tables import say
from harness.triton import BoundTritonServer, TritonServer, TwoInstancesTritonServer

SERVERS: Mapping[str, type[Server]] = {
    "leadline": LeadlineServer,
    "triton": TritonServer,
    "triton-2-instances": TwoInstancesTritonServer,
    "pytriton": BoundTritonServer,
    "mlserver": MLServer,
    "mlserver-batching": BatchingMLServer,
}
"""The servers to compare, by name."""

SERVER_CORE, LOAD_CORE = 0, 1

# Concurrent requests with different images, before each measurement. They detect a server that
# returns the wrong results of a merged batch.
_QUESTIONS = 32
_QUESTION_BYTES = 1 << 24


@dataclass(frozen=True)
class Point:
    """A point to measure: images per request, and requests in flight."""

    batch: int
    in_flight: int

    def __str__(self) -> str:
        return f"{self.batch} x {self.in_flight}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a comparison."""

    servers: Sequence[str]
    points: Sequence[Point]
    rounds: int
    seconds: float
    warm_up_seconds: float
    connections: int


@dataclass
class Measured:
    """The results of one server at one point, one value per round."""

    per_second: list[float] = field(default_factory=list)
    """Requests per second."""

    p50: list[float] = field(default_factory=list)
    """Median latency in milliseconds."""

    p99: list[float] = field(default_factory=list)
    """99th percentile of the latency in milliseconds."""

    cpu: list[float] = field(default_factory=list)
    """CPU time per request in microseconds; other processes hardly change it."""

    def add(self, sample: "Sample") -> None:
        """Adds a round."""
        self.per_second.append(sample.load.per_second)
        self.p50.append(sample.load.latency(50))
        self.p99.append(sample.load.latency(99))
        self.cpu.append(sample.cpu)


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    load: LoadResult
    """The result of h2load."""

    cpu: float
    """The server's CPU time per request in microseconds."""


Figures = dict[Point, dict[str, Measured]]


def compare(plan: Plan, trained: Trained) -> Figures:
    """Starts all servers, measures them, and stops them.

    Raises:
        ServerError: a server does not start.
        WrongAnswerError: a server gives a wrong answer.
        LoadError: h2load fails.
    """
    figures: Figures = {point: {name: Measured() for name in plan.servers} for point in plan.points}
    stay_on(LOAD_CORE)  # the checks must not use the servers' core
    with running(plan.servers, trained) as servers:
        for number in range(1, plan.rounds + 1):
            for point in plan.points:
                asked = questions(trained, point)
                for server in servers:
                    sample = measure(server, point, asked, plan)
                    figures[point][server.name].add(sample)
                    say(f"round {number} of {plan.rounds}  {_progress(server, point, sample)}")
    return figures


@contextmanager
def running(names: Sequence[str], trained: Trained) -> Iterator[list[Server]]:
    """Yields the running servers, ready for requests."""
    with tempfile.TemporaryDirectory(prefix="leadline-servers-") as folder, ExitStack() as stack:
        servers = []
        for name in names:
            server = SERVERS[name](name, trained, Path(folder) / name, core=SERVER_CORE)
            stack.callback(server.stop)
            servers.append(server)
        for server in servers:
            server.wait_ready()
            say(f"{server.name} serves")
        yield servers


def stay_on(core: int) -> None:
    """Pins all threads of this process to one core."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def questions(trained: Trained, point: Point, *, as_bytes: bool = False) -> list[Question]:
    """Returns the request to measure, and similar requests for the check.

    Args:
        trained: the model.
        point: the number of images per request.
        as_bytes: sends uint8 pixels instead of float32.
    """
    each = request(trained.model, draw_images(point.batch, as_bytes=as_bytes))
    count = max(1, min(_QUESTIONS, _QUESTION_BYTES // len(each)))
    seeds = range(1, count + 1)
    images = [draw_images(point.batch, seed=seed, as_bytes=as_bytes) for seed in seeds]
    return [Question(request(trained.model, image), trained.logits(image)) for image in images]


def measure(server: Server, point: Point, asked: list[Question], plan: Plan) -> Sample:
    """Measures once, with checks before, during and after.

    Args:
        server: the server to measure.
        point: the point to measure at.
        asked: the requests of `questions`; h2load repeats the first.
        plan: the duration, and the number of connections.

    Raises:
        WrongAnswerError: a response is wrong, or the counts differ.
        LoadError: h2load fails.
    """
    load = Load(
        in_flight=point.in_flight,
        connections=min(plan.connections, point.in_flight),
        seconds=plan.seconds,
        warm_up_seconds=plan.warm_up_seconds,
    )
    answer_bytes = check_answers(server.target, asked, at_once=point.in_flight)
    before, cpu_before = server.counts(), server.cpu_seconds()
    result = run_h2load(server.target, MODEL_INFER, asked[0].message, load, core=LOAD_CORE)
    cpu_seconds, counted = server.cpu_seconds() - cpu_before, server.counts() - before
    check_load(load, result, counted=counted, answer_bytes=answer_bytes)
    check_answers(server.target, asked, at_once=point.in_flight)
    return Sample(result, 1e6 * cpu_seconds / counted.succeeded)


def _progress(server: Server, point: Point, sample: Sample) -> str:
    load = sample.load
    return (
        f"{point.in_flight:>3} in flight of {point.batch:>3}  {server.name:<18} "
        f"{load.per_second:9,.1f}/s  p50 {load.latency(50):.2f} ms  p99 {load.latency(99):.2f} ms  "
        f"{sample.cpu:,.0f} us of CPU"
    )
