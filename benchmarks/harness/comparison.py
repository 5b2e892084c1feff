"""The comparison itself: rounds, in which every server has its turn at every point."""

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
"""What can be compared, by name."""

SERVER_CORE, LOAD_CORE = 0, 1

# Different images at once, before each measurement: were answers of joined
# requests dealt out wrongly, this would tell.
_QUESTIONS = 32
_QUESTION_BYTES = 1 << 24


@dataclass(frozen=True)
class Point:
    """What is measured: so many requests in flight, of so many images each."""

    batch: int
    in_flight: int

    def __str__(self) -> str:
        return f"{self.batch} x {self.in_flight}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole comparison."""

    servers: Sequence[str]
    points: Sequence[Point]
    rounds: int
    seconds: float
    warm_up_seconds: float
    connections: int


@dataclass
class Measured:
    """What came of one server at one point, a value for each round."""

    per_second: list[float] = field(default_factory=list)
    """Requests a second."""

    p50: list[float] = field(default_factory=list)
    """Milliseconds."""

    p99: list[float] = field(default_factory=list)
    """Milliseconds."""

    cpu: list[float] = field(default_factory=list)
    """Microseconds of a core for each request; what runs beside changes it little."""

    def add(self, sample: "Sample") -> None:
        """Takes up a round."""
        self.per_second.append(sample.load.per_second)
        self.p50.append(sample.load.latency(50))
        self.p99.append(sample.load.latency(99))
        self.cpu.append(sample.cpu)


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    load: LoadResult
    """What h2load saw."""

    cpu: float
    """Microseconds of a core that the server took for each request."""


Figures = dict[Point, dict[str, Measured]]


def compare(plan: Plan, trained: Trained) -> Figures:
    """Starts all servers, measures, and ends them.

    Raises:
        ServerError: one does not start.
        WrongAnswerError: one answers otherwise than it should.
        LoadError: h2load does not do as expected.
    """
    figures: Figures = {point: {name: Measured() for name in plan.servers} for point in plan.points}
    stay_on(LOAD_CORE)  # checking answers must not take time from the servers
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
    """The servers, ready to answer, within the context."""
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
    """Keeps this process, with all its threads, on one core."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def questions(trained: Trained, point: Point, *, as_bytes: bool = False) -> list[Question]:
    """The request that is measured, and others of its kind to be asked beside it.

    Args:
        trained: the model that is asked.
        point: how many images each has.
        as_bytes: asks about uint8 pixels, and not about float32.
    """
    each = request(trained.model, draw_images(point.batch, as_bytes=as_bytes))
    count = max(1, min(_QUESTIONS, _QUESTION_BYTES // len(each)))
    seeds = range(1, count + 1)
    images = [draw_images(point.batch, seed=seed, as_bytes=as_bytes) for seed in seeds]
    return [Question(request(trained.model, image), trained.logits(image)) for image in images]


def measure(server: Server, point: Point, asked: list[Question], plan: Plan) -> Sample:
    """One measurement, and the checks before, beside and after it.

    Args:
        server: what is measured.
        point: at how much.
        asked: as `questions` gives them; the first is sent over and over.
        plan: how long, and over how many connections.

    Raises:
        WrongAnswerError: an answer is wrong, or counts disagree.
        LoadError: h2load does not do as expected.
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
