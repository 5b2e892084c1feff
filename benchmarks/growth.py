"""What grows with the stored jobs, and what many watchers cost: `python benchmarks/growth.py`.

Two servers run side by side, one with a history of 100 finished jobs of 51 epochs, one with
10,000. Calls of both take turns; the least latency of each counts. Another process asks the
larger server for its health meanwhile. It takes about five minutes.
"""

import argparse
import functools
import multiprocessing
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from harness.history import SWEEP_JOBS, WAITING, HistoryServer, write_history
from harness.probing import OPTIONS, Samples, probing, watching
from harness.tables import machine, say, table
from leadline.client import Client
from leadline.models.images import encode_png
from leadline.oip.v2 import open_inference_pb2 as oip
from leadline.v1 import inference_service_pb2 as inference
from leadline.v1 import inspection_service_pb2 as inspection
from leadline.v1 import job_pb2, model_pb2
from leadline.v1 import training_service_pb2 as training

_TRAINING, _INFERENCE, _INSPECTION = (
    f"/leadline.v1.{name}Service" for name in ("Training", "Inference", "Inspection")
)
_INDEX = "/inference.GRPCInferenceService/RepositoryIndex"
_HEALTH = "/grpc.health.v1.Health/Check"
_WRITE = f"{_TRAINING}/PauseJob"

_JOBS = (100, 10_000)
_EPOCHS = 51
_STARTS = 2

# The least calls, and the least seconds, for each row of the table.
_LEAST_CALLS = 8
_ROW_SECONDS = 1.5

_PROBE_SECONDS = 0.005

# How often four callers request the index at once.
_ROUNDS = 10

_WATCHERS = 1_000
_WATCH_SECONDS = 8.0

# Changes of watched jobs per second: each sends an event to every watcher of the job.
_NEWS = {1: 1.0, WAITING: 10.0}


def main(arguments: Sequence[str]) -> int:
    """Runs the measurements, and prints tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=_JOBS[1], help="of the larger server (10000)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="leadline-growth-") as folder, ExitStack() as stack:
        sites = [
            _Site(Path(folder, str(jobs)), jobs, sweep_jobs=sweep_jobs)
            for jobs, sweep_jobs in ((_JOBS[0], 0), (options.jobs, SWEEP_JOBS))
        ]
        starts = _measure_starts(sites)
        for site in sites:
            site.train_one()
            stack.callback(site.server.stop)
            site.server.start()
        few, many = sites
        counts = [f"{site.jobs:,} jobs" for site in sites]
        heads = ["call", *(f"{count}, ms" for count in counts), "ratio", "health p99, ms"]
        _print(table(heads, [*_measure_calls(few, many), starts]))
        _print(table(("what", "measured", "bar"), [*_measure_index(many), _measure_deletion(many)]))
        heads = ["1,000 watchers", "news a second", "core", "health p99, ms"]
        _print(table(heads, _measure_watchers(many)))
    _print(machine())
    return 0


class _Site:
    """A server with a history, and connections to it."""

    def __init__(self, folder: Path, jobs: int, *, sweep_jobs: int) -> None:
        self.jobs = jobs
        self.server = HistoryServer(folder)
        self.model = ""
        say(f"a history of {jobs:,} jobs")
        write_history(folder / "data", jobs, epochs=_EPOCHS, sweep_jobs=sweep_jobs)

    def train_one(self) -> None:
        """Trains a model for predictions."""
        self.server.start(holds_jobs=False)
        with Client(self.server.target) as client:
            job = client.train(dataset="synthetic", blocks=1, epochs=1)
            job.result()
            self.model = job.model
        self.server.stop()

    @contextmanager
    def calling(self, path: str) -> Iterator[Callable[..., bytes]]:
        """Returns a method over a separate connection."""
        with grpc.insecure_channel(self.server.target, OPTIONS) as channel:
            method: Any = channel.unary_unary(path)
            yield functools.partial(method, timeout=60)


@dataclass(frozen=True)
class _Row:
    """A call of the table, its status, and whether a write to the store precedes it."""

    name: str
    path: str
    request: Any
    code: grpc.StatusCode = grpc.StatusCode.OK
    after_write: bool = False


def _rows(model: str) -> Iterator[_Row]:
    states = training.ListJobsRequest(states=[job_pb2.JOB_STATE_SUCCEEDED])
    yield _Row("GetJob", f"{_TRAINING}/GetJob", training.GetJobRequest(name="jobs/f50"))
    yield _Row("ListJobs, 50", f"{_TRAINING}/ListJobs", training.ListJobsRequest())
    yield _Row("ListJobs, 50 succeeded", f"{_TRAINING}/ListJobs", states)
    yield _Row("ListModels, 50", f"{_INFERENCE}/ListModels", inference.ListModelsRequest())
    depth = inference.ListModelsRequest(blocks=4, page_size=10)
    yield _Row("ListModels, 10 of a depth", f"{_INFERENCE}/ListModels", depth)
    get_model = inference.GetModelRequest(name="models/f50")
    yield _Row("GetModel", f"{_INFERENCE}/GetModel", get_model)
    image = inference.EncodedImages(images=[encode_png(np.zeros((32, 32, 3), np.uint8))])
    by_name = inference.PredictRequest(model=model, encoded=image)
    variant = model_pb2.Variant(dataset="synthetic", blocks=1)
    by_variant = inference.PredictRequest(variant=variant, encoded=image)
    yield _Row("Predict by name, warm", f"{_INFERENCE}/Predict", by_name)
    yield _Row(
        "Predict by variant, after a write",
        f"{_INFERENCE}/Predict",
        by_variant,
        after_write=True,
    )
    # Jobs of the history have no files, so this measures only the choice of models.
    yield _Row(
        "ListLikelyLabelErrors by dataset",
        f"{_INSPECTION}/ListLikelyLabelErrors",
        inspection.ListLikelyLabelErrorsRequest(dataset="tiny"),
        code=grpc.StatusCode.FAILED_PRECONDITION,
        after_write=True,
    )
    yield _Row("a write (PauseJob)", _WRITE, training.PauseJobRequest(name="jobs/p0"))


def _large_rows() -> Iterator[_Row]:
    thousand = training.ListJobsRequest(page_size=1_000)
    yield _Row("ListJobs, 1,000", f"{_TRAINING}/ListJobs", thousand)
    models = inference.ListModelsRequest(page_size=1_000)
    yield _Row("ListModels, 1,000 or 3.5 MB", f"{_INFERENCE}/ListModels", models)
    get_sweep = training.GetSweepRequest(name="sweeps/s")
    yield _Row("GetSweep of 1,000 jobs", f"{_TRAINING}/GetSweep", get_sweep, after_write=True)


def _measure_calls(few: _Site, many: _Site) -> Iterator[list[str]]:
    measured = []
    with probing(many.server.target, _HEALTH, b"", interval=_PROBE_SECONDS) as health:
        rows = zip(_rows(few.model), _rows(many.model), strict=True)
        for row, other in rows:
            measured.append((row.name, *_alternate([(few, row), (many, other)])))
        measured += [(row.name, *_alternate([(many, row)])) for row in _large_rows()]
        measured.append(("a scrape of metrics", *_alternate_scrapes(few, many)))
    for name, least, began, ended in measured:
        yield [
            name,
            *([""] if len(least) == 1 else []),
            *(f"{seconds * 1e3:.1f}" for seconds in least),
            f"{least[1] / least[0]:.2f}" if len(least) > 1 else "",
            _p99(health.between(began, ended)),
        ]


def _alternate(rows: Sequence[tuple[_Site, _Row]]) -> tuple[list[float], float, float]:
    """Returns the lowest latency on each site, and when it began and ended, in seconds."""
    say(rows[0][1].name)
    with ExitStack() as stack:
        calls = [
            functools.partial(
                _timed,
                row,
                stack.enter_context(site.calling(row.path)),
                stack.enter_context(site.calling(_WRITE)),
            )
            for site, row in rows
        ]
        return _take_turns(calls)


def _alternate_scrapes(*sites: _Site) -> tuple[list[float], float, float]:
    def scrape(url: str) -> float:
        began = time.perf_counter()
        with urllib.request.urlopen(url, timeout=60) as response:
            response.read()
        return time.perf_counter() - began

    return _take_turns([functools.partial(scrape, site.server.metrics_url) for site in sites])


def _take_turns(calls: Sequence[Callable[[], float]]) -> tuple[list[float], float, float]:
    for call in calls:
        call()
    seconds: list[list[float]] = [[] for _ in calls]
    began = time.monotonic()
    while time.monotonic() < began + _ROW_SECONDS or len(seconds[0]) < _LEAST_CALLS:
        for call, taken in zip(calls, seconds, strict=True):
            taken.append(call())
    return [min(taken) for taken in seconds], began, time.monotonic()


def _timed(row: _Row, call: Callable[[bytes], bytes], write: Callable[[bytes], bytes]) -> float:
    if row.after_write:
        write(training.PauseJobRequest(name="jobs/p0").SerializeToString())
    request = row.request.SerializeToString()
    code = grpc.StatusCode.OK
    began = time.perf_counter()
    try:
        call(request)
    except grpc.RpcError as error:
        code = error.code()
    seconds = time.perf_counter() - began
    if code is not row.code:
        raise ValueError(f"{row.name}: {code.name}")
    return seconds


def _measure_starts(sites: Sequence[_Site]) -> list[str]:
    least = [float("inf")] * len(sites)
    for _ in range(_STARTS):
        for number, site in enumerate(sites):
            site.server.start()
            least[number] = min(least[number], site.server.start_seconds)
            site.server.stop()
    few, many = least
    return ["the start", f"{few * 1e3:.0f}", f"{many * 1e3:.0f}", f"{many / few:.2f}", ""]


def _measure_index(site: _Site) -> Iterator[list[str]]:
    """Requests the index of all models: alone, then four at once with short deadlines."""
    request = oip.RepositoryIndexRequest().SerializeToString()
    get_job = training.GetJobRequest(name="jobs/f50").SerializeToString()
    write = training.PauseJobRequest(name="jobs/p0").SerializeToString()
    # After a write each, because callers share the response until the next write.
    row = _Row("RepositoryIndex", _INDEX, oip.RepositoryIndexRequest(), after_write=True)
    (least,), _, _ = _alternate([(site, row)])
    answered, idle, busy = 0, _Times(), _Times()
    with (
        probing(
            site.server.target, f"{_TRAINING}/GetJob", get_job, interval=_PROBE_SECONDS
        ) as others,
        ExitStack() as stack,
        ThreadPoolExecutor(4) as pool,
    ):
        calls = [stack.enter_context(site.calling(_INDEX)) for _ in range(4)]
        change = stack.enter_context(site.calling(_WRITE))
        size = len(calls[0](request))
        for _ in range(_ROUNDS):
            change(write)
            with idle.noted():
                time.sleep(0.5)
            with busy.noted():
                answered += sum(pool.map(lambda call: _is_answered(call, request), calls))
    yield ["RepositoryIndex, least", f"{least:.3f} s, {size / 1e6:.2f} MB", "0.3 s, 4 MiB"]
    yield [
        f"GetJob beside four with deadlines of 1 s ({answered} of {4 * _ROUNDS} answered)",
        f"{_p99_and_slowest(others, busy)}; alone {_p99_and_slowest(others, idle)}",
        "50 ms more",
    ]


class _Times:
    """The time spans of a measurement."""

    def __init__(self) -> None:
        self._times: list[tuple[float, float]] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Records the time span of the block."""
        began = time.monotonic()
        yield
        self._times.append((began, time.monotonic()))

    @property
    def total(self) -> float:
        """The total duration in seconds."""
        return sum(ended - began for began, ended in self._times)

    def seconds(self, samples: Samples) -> list[float]:
        """The latencies of the calls during the time spans, in seconds."""
        return [seconds for times in self._times for seconds in samples.between(*times)]


def _p99_and_slowest(samples: Samples, times: _Times) -> str:
    seconds = times.seconds(samples)
    return f"p99 {_p99(seconds)} ms, slowest {max(seconds) * 1e3:.1f} ms"


def _is_answered(call: Callable[..., bytes], request: bytes) -> bool:
    try:
        call(request, timeout=1)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
        return False
    return True


def _measure_deletion(site: _Site) -> list[str]:
    """Deletes a sweep while another caller writes."""
    write = training.PauseJobRequest(name="jobs/p0").SerializeToString()
    request = training.DeleteSweepRequest(name="sweeps/d").SerializeToString()
    idle, deleting = _Times(), _Times()
    with (
        probing(site.server.target, _WRITE, write, interval=_PROBE_SECONDS) as writes,
        site.calling(f"{_TRAINING}/DeleteSweep") as delete,
    ):
        with idle.noted():
            time.sleep(2)
        with deleting.noted():
            delete(request)
    return [
        f"a write beside DeleteSweep of {SWEEP_JOBS:,} jobs, which takes {deleting.total:.1f} s",
        f"{_p99_and_slowest(writes, deleting)}; alone {_p99_and_slowest(writes, idle)}",
        "100 ms",
    ]


def _measure_watchers(site: _Site) -> Iterator[list[str]]:
    for jobs, rate in _NEWS.items():
        requests = [
            training.WatchJobRequest(
                name=f"jobs/p{number % jobs}", after_sequence=1
            ).SerializeToString()
            for number in range(_WATCHERS)
        ]
        say(f"{_WATCHERS:,} watchers of {jobs} jobs")
        with watching(site.server.target, f"{_TRAINING}/WatchJob", requests):
            yield _watched(site, jobs, 0.0)
            yield _watched(site, jobs, rate)


def _watched(site: _Site, jobs: int, rate: float) -> list[str]:
    with probing(site.server.target, _HEALTH, b"", interval=_PROBE_SECONDS) as health:
        computed, began = site.server.cpu_seconds, time.monotonic()
        _make_news(site, jobs, rate, until=began + _WATCH_SECONDS)
        ended = time.monotonic()
        share = (site.server.cpu_seconds - computed) / (ended - began)
    name = "of one job" if jobs == 1 else f"over {jobs} jobs"
    events = f"{rate * _WATCHERS / jobs:,.0f}"
    return [name, events, f"{share:.0%}", _p99(health.between(began, ended))]


def _make_news(site: _Site, jobs: int, rate: float, *, until: float) -> None:
    """Resumes and pauses jobs by round robin; each change is an event of one job."""
    changes = [
        (f"{_TRAINING}/{method}", request)
        for number in range(jobs)
        for method, request in (
            ("ResumeJob", training.ResumeJobRequest(name=f"jobs/p{number}")),
            ("PauseJob", training.PauseJobRequest(name=f"jobs/p{number}")),
        )
    ]
    done = threading.Event()
    count = 0
    with grpc.insecure_channel(site.server.target, OPTIONS) as channel:
        while (left := until - time.monotonic()) > 0:
            if rate:
                path, request = changes[count % len(changes)]
                method: Any = channel.unary_unary(path)
                method(request.SerializeToString(), timeout=60)
                count += 1
            done.wait(min(left, 1 / rate if rate else left))


def _p99(seconds: Sequence[float]) -> str:
    return f"{np.percentile(seconds, 99) * 1e3:.1f}" if len(seconds) else "none"


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    multiprocessing.freeze_support()
    sys.exit(main(sys.argv[1:]))
