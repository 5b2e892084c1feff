"""What more serving processes bring: CPU a request, and the capacity that it leaves.

A machine of two cores has none left for the load, so requests a second say little here. What
a request costs its server says it: a core has a second each second. The load runs at the
lowest priority, on the cores of the server, so that it is as busy as it can be. There is a load
for each process, because requests that are in flight together share batches.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from harness.checks import Question, check_answers, check_load
from harness.comparison import Plan, Point, questions
from harness.h2load import Load, LoadResult, run_h2load
from harness.infer import MODEL_INFER
from harness.leadline import LeadlineServer
from harness.models import Trained
from harness.stats import Spread
from harness.tables import say, table

PROCESSES = (1, 2)

# For each process: enough that the kernel's hash gives each its share.
_CONNECTIONS = 32

_LOWEST_PRIORITY = 19


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One measurement."""

    batch: int
    """Images a request."""

    processes: int
    per_second: float
    """Requests a second, beside the load."""

    cpu: float
    """Microseconds of a core for each request, in all processes of the server."""

    shares: list[float]
    """What part of the requests each process has answered."""

    @property
    def capacity(self) -> float:
        """Requests a second if each process had a core to itself."""
        return 1e6 * self.processes / self.cpu


def measure(trained: Trained, plan: Plan) -> list[Cost]:
    """Each round first with one process on one core, then with two on two.

    Raises:
        ServerError: a server does not start.
        WrongAnswerError: an answer is wrong.
        LoadError: h2load does not do as expected.
    """
    costs = []
    with _servers(trained) as servers:
        for number in range(1, plan.rounds + 1):
            for point in plan.points:
                asked = questions(trained, point)
                for processes, server in servers.items():
                    cost = _cost(server, processes, asked, point, plan)
                    say(
                        f"round {number}, {point}, {processes} processes: {cost.cpu:.1f} us of CPU "
                        f"a request, {cost.per_second:,.0f}/s, shares {cost.shares}"
                    )
                    costs.append(cost)
    return costs


def report(costs: list[Cost]) -> str:
    """The table, and how the two compare."""
    rows, ratios = [], []
    for batch in dict.fromkeys(cost.batch for cost in costs):
        by_count = {
            count: [cost for cost in costs if (cost.batch, cost.processes) == (batch, count)]
            for count in PROCESSES
        }
        for count, measured in by_count.items():
            rows.append(
                [
                    str(batch),
                    str(count),
                    Spread.of([cost.cpu for cost in measured]).text(1),
                    Spread.of([cost.capacity for cost in measured]).text(),
                    f"{min(min(cost.shares) for cost in measured):.2f}",
                ]
            )
        one, two = (by_count[count] for count in PROCESSES)
        cpu = Spread.of_ratios([cost.cpu for cost in two], [cost.cpu for cost in one])
        capacity = Spread.of_ratios(
            [cost.capacity for cost in two], [cost.capacity for cost in one]
        )
        ratios.append(
            f"{batch} images: two processes take {cpu.text(2)} of the CPU a request that one "
            f"takes (bar: 1.1), so {capacity.text(2)} times its capacity (bar: 1.8)\n"
        )
    heads = (
        "images",
        "processes",
        "us of CPU a request",
        "requests/s of these cores",
        "least share",
    )
    return table(heads, rows) + "\n" + "".join(ratios)


def as_json(costs: list[Cost]) -> dict[str, Any]:
    """Every measurement."""
    return {"processes": [asdict(cost) for cost in costs]}


@contextmanager
def _servers(trained: Trained) -> Iterator[dict[int, LeadlineServer]]:
    """A server of each number of processes, each process on its own core."""
    with tempfile.TemporaryDirectory(prefix="leadline-servers-") as folder, ExitStack() as stack:
        servers = {}
        for count in PROCESSES:
            # A data directory has one server.
            data = shutil.copytree(trained.data_dir, Path(folder) / f"data-{count}")
            flags = () if count == 1 else ("--serving-processes", str(count))
            server = LeadlineServer(
                f"{count} processes",
                replace(trained, data_dir=data),
                Path(folder) / str(count),
                core=0 if count == 1 else None,
                flags=flags,
            )
            stack.callback(server.stop)
            server.wait_ready()
            servers[count] = server
        for core, process in enumerate(_serving(servers[2])):
            for thread in process.threads():
                os.sched_setaffinity(thread.id, {core})
        yield servers


def _serving(server: LeadlineServer) -> list[psutil.Process]:
    main = psutil.Process(server.pid)
    return [main, *main.children()]


def _cost(
    server: LeadlineServer, processes: int, asked: list[Question], point: Point, plan: Plan
) -> Cost:
    load = Load(
        in_flight=point.in_flight,
        connections=min(_CONNECTIONS, point.in_flight),
        seconds=plan.seconds,
        warm_up_seconds=plan.warm_up_seconds,
    )
    answer_bytes = check_answers(server.target, asked, at_once=point.in_flight)
    shares_before, before, cpu_before = (
        server.shares(processes),
        server.counts(),
        server.cpu_seconds(),
    )
    result = _run_loads(server.target, asked[0].message, load, processes)
    cpu_seconds, counted = server.cpu_seconds() - cpu_before, server.counts() - before
    whole = replace(
        load, in_flight=processes * load.in_flight, connections=processes * load.connections
    )
    check_load(whole, result, counted=counted, answer_bytes=answer_bytes)
    answered = np.array(server.shares(processes)) - shares_before
    return Cost(
        batch=point.batch,
        processes=processes,
        per_second=result.per_second,
        cpu=1e6 * cpu_seconds / counted.succeeded,
        shares=[round(float(share), 3) for share in answered / answered.sum()],
    )


def _run_loads(target: str, message: bytes, load: Load, count: int) -> LoadResult:
    """What comes of a load on each of the first cores, at the same time."""
    with ThreadPoolExecutor(count) as pool:
        run = partial(run_h2load, target, MODEL_INFER, message, load, niceness=_LOWEST_PRIORITY)
        results = list(pool.map(lambda core: run(core=core), range(count)))
    return LoadResult(
        succeeded=sum(result.succeeded for result in results),
        failed=sum(result.failed for result in results),
        data_bytes=sum(result.data_bytes for result in results),
        seconds=load.seconds,
        latencies=np.concatenate([result.latencies for result in results]),
    )
