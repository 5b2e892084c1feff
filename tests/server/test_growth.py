"""The work of a read does not grow with the number of stored jobs.

Every method, the start, a wake of the scheduler, the reports of a worker, the live page and
the metrics are measured with few stored jobs and with many: their queries, and the virtual
instructions of SQLite.
"""

import asyncio
import re
import sqlite3
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import sqlalchemy
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from sqlalchemy import Engine

from leadline.models.images import encode_png
from leadline.models.spec import TrainingSpec
from leadline.oip.v2 import open_inference_pb2 as oip
from leadline.server.access.control import AccessControl
from leadline.server.access.sessions import Sessions
from leadline.server.api.oip import service as open_inference
from leadline.server.api.server import GrpcServer
from leadline.server.application import (
    Core,
    _http_port,
    _make_scheduler,
    _make_servicers,
    _scheduling,
    make_predictor,
)
from leadline.server.datasets import KnownDatasets
from leadline.server.jobs.job import Paused
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.states import JobState
from leadline.server.live.page import make_pages
from leadline.server.processes.supervisor import ServingProcesses
from leadline.server.settings import Settings
from leadline.server.startup import DataDir
from leadline.server.storage.database import open_database
from leadline.server.storage.store import Store
from leadline.server.sweeps.grid import Grid, SweepAxis
from leadline.server.sweeps.sweep import SweepRequest
from leadline.server.telemetry.gate import HttpGate
from leadline.v1 import inference_service_pb2 as inference
from leadline.v1 import inspection_service_pb2 as inspection
from leadline.v1 import job_pb2, model_pb2, sweep_pb2
from leadline.v1 import training_service_pb2 as training
from support.reports import STARTED, an_epoch
from support.stores import fill
from support.wire import tiny_spec

FEW, MANY = 100, 10_000

# A search in a larger index needs a few more steps.
SLACK = 1.2, 300

# The instructions between two calls of the counter: each call takes the GIL.
STEPS = 10

SECONDS = 60

TRAINING, INFERENCE, INSPECTION = (
    f"/leadline.v1.{name}Service" for name in ("Training", "Inference", "Inspection")
)
OIP = f"/{open_inference.SERVICE_NAME}"

# Statements that may scan a whole table or index, and the reasons.
WHOLE_SCANS = {
    r"FROM sweeps \nWHERE sweeps\.end_time IS NULL": "the index has only sweeps"
    " that have not ended",
    r"^SELECT jobs\.job_id \nFROM jobs$": "at the start, the folders of models are compared with"
    " the ids of all jobs, which are read from an index",
}

# Instructions per stored job, where the response contains all jobs.
MOST_PER_JOB = {
    f"{OIP}/RepositoryIndex": 12,  # names the newest 50,000 models
    "the start": 6,  # the ids of all jobs
}


# The measured calls


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call and its status; a stream is cancelled after `take` messages."""

    request: Message
    code: StatusCode = StatusCode.OK
    take: int | None = None


# Stored jobs have no files, but these calls make all their reads of the store.
NO_DATASET = StatusCode.FAILED_PRECONDITION
TENSOR = oip.ModelInferRequest.InferInputTensor(
    name="images", datatype="FP32", shape=[1, 3, 32, 32]
)
INFER = oip.ModelInferRequest(
    model_name="f1", inputs=[TENSOR], raw_input_contents=[bytes(4 * 3 * 32 * 32)]
)
PREDICT = inference.PredictRequest(
    variant=model_pb2.Variant(dataset="tiny", blocks=2),
    encoded=inference.EncodedImages(images=[encode_png(np.zeros((32, 32, 3), np.uint8))]),
)

CALLS: dict[str, Sequence[Call]] = {
    f"{TRAINING}/TrainJob": [
        Call(request=training.TrainJobRequest(spec=tiny_spec()), take=1),
    ],
    f"{TRAINING}/WatchJob": [
        Call(request=training.WatchJobRequest(name="jobs/f7")),
        Call(request=training.WatchJobRequest(name="jobs/q0"), take=1),
    ],
    f"{TRAINING}/GetJob": [Call(request=training.GetJobRequest(name="jobs/f7"))],
    f"{TRAINING}/ListJobs": [
        Call(request=training.ListJobsRequest()),
        Call(request=training.ListJobsRequest(states=[job_pb2.JOB_STATE_SUCCEEDED])),
        Call(request=training.ListJobsRequest(states=[job_pb2.JOB_STATE_RUNNING])),
        Call(request=training.ListJobsRequest(states=job_pb2.JobState.values()[1:])),
        Call(request=training.ListJobsRequest(sweep="sweeps/s")),
        Call(request=training.ListJobsRequest(owner="me")),
        Call(request=training.ListJobsRequest(owner="ann")),
        Call(request=training.ListJobsRequest(owner="ann", states=job_pb2.JobState.values()[1:])),
    ],
    f"{TRAINING}/CancelJob": [Call(request=training.CancelJobRequest(name="jobs/q1"))],
    f"{TRAINING}/PauseJob": [Call(request=training.PauseJobRequest(name="jobs/q2"))],
    f"{TRAINING}/ResumeJob": [Call(request=training.ResumeJobRequest(name="jobs/p0"))],
    f"{TRAINING}/DeleteJob": [Call(request=training.DeleteJobRequest(name="jobs/f9"))],
    f"{TRAINING}/TrainSweep": [
        Call(
            request=training.TrainSweepRequest(
                spec=tiny_spec(),
                axes=[sweep_pb2.SweepAxis(field="seed", values=[Value(number_value=1)])],
            ),
            take=1,
        ),
    ],
    f"{TRAINING}/WatchSweep": [Call(request=training.WatchSweepRequest(name="sweeps/s"), take=9)],
    f"{TRAINING}/GetSweep": [Call(request=training.GetSweepRequest(name="sweeps/s"))],
    f"{TRAINING}/ListSweeps": [
        Call(request=training.ListSweepsRequest()),
        Call(request=training.ListSweepsRequest(owner="ann")),
    ],
    f"{TRAINING}/CancelSweep": [Call(request=training.CancelSweepRequest(name="sweeps/c"))],
    f"{TRAINING}/PauseSweep": [Call(request=training.PauseSweepRequest(name="sweeps/h"))],
    f"{TRAINING}/ResumeSweep": [Call(request=training.ResumeSweepRequest(name="sweeps/r"))],
    f"{TRAINING}/DeleteSweep": [Call(request=training.DeleteSweepRequest(name="sweeps/d"))],
    f"{TRAINING}/GetQuota": [
        Call(request=training.GetQuotaRequest()),
        Call(request=training.GetQuotaRequest(identity="ann")),
    ],
    f"{TRAINING}/ListDiskUsage": [Call(request=training.ListDiskUsageRequest())],
    f"{INFERENCE}/Predict": [Call(request=PREDICT, code=StatusCode.DATA_LOSS)],
    f"{INFERENCE}/PredictStream": [
        Call(request=inference.PredictStreamRequest(request=PREDICT)),
    ],
    f"{INFERENCE}/ListModels": [
        Call(request=inference.ListModelsRequest()),
        Call(request=inference.ListModelsRequest(dataset="tiny")),
        Call(request=inference.ListModelsRequest(dataset="none")),
        Call(request=inference.ListModelsRequest(blocks=2, page_size=9)),
        Call(request=inference.ListModelsRequest(blocks=64, batch_norm=True)),
        Call(request=inference.ListModelsRequest(owner="ann")),
        Call(request=inference.ListModelsRequest(owner="ann", dataset="tiny")),
        Call(request=inference.ListModelsRequest(owner="ann", blocks=2)),
    ],
    f"{INFERENCE}/GetModel": [Call(request=inference.GetModelRequest(name="models/f7"))],
    f"{INFERENCE}/ExportModel": [
        Call(
            request=inference.ExportModelRequest(model="models/f7"),
            code=StatusCode.DATA_LOSS,
        )
    ],
    f"{INSPECTION}/ListMisclassified": [
        Call(request=inspection.ListMisclassifiedRequest(model="models/f7"), code=NO_DATASET)
    ],
    f"{INSPECTION}/GetConfusionMatrix": [
        Call(request=inspection.GetConfusionMatrixRequest(model="models/f7"), code=NO_DATASET)
    ],
    f"{INSPECTION}/CompareModels": [
        Call(
            request=inspection.CompareModelsRequest(
                baseline=inspection.ModelSelector(model="models/f7"),
                candidate=inspection.ModelSelector(model="models/f8"),
            ),
            code=NO_DATASET,
        )
    ],
    f"{INSPECTION}/ListLikelyLabelErrors": [
        Call(request=inspection.ListLikelyLabelErrorsRequest(dataset="tiny"), code=NO_DATASET)
    ],
    f"{OIP}/ServerLive": [Call(request=oip.ServerLiveRequest())],
    f"{OIP}/ServerReady": [Call(request=oip.ServerReadyRequest())],
    f"{OIP}/ServerMetadata": [Call(request=oip.ServerMetadataRequest())],
    f"{OIP}/ModelReady": [Call(request=oip.ModelReadyRequest(name="tiny-3-blocks"))],
    f"{OIP}/ModelMetadata": [Call(request=oip.ModelMetadataRequest(name="tiny-3-blocks"))],
    f"{OIP}/ModelConfig": [Call(request=oip.ModelConfigRequest(name="f7", version="1"))],
    f"{OIP}/ModelInfer": [Call(request=INFER, code=StatusCode.DATA_LOSS)],
    f"{OIP}/ModelStreamInfer": [Call(request=INFER)],
    f"{OIP}/ModelStatistics": [Call(request=oip.ModelStatisticsRequest(name="f7"))],
    f"{OIP}/RepositoryIndex": [Call(request=oip.RepositoryIndexRequest())],
    f"{OIP}/RepositoryModelLoad": [
        Call(
            request=oip.RepositoryModelLoadRequest(model_name="tiny-4-blocks"),
            code=StatusCode.DATA_LOSS,
        )
    ],
    f"{OIP}/RepositoryModelUnload": [
        Call(request=oip.RepositoryModelUnloadRequest(model_name="tiny-1-blocks"))
    ],
    "/grpc.health.v1.Health/Check": [Call(request=HealthCheckRequest())],
    "/grpc.health.v1.Health/Watch": [Call(request=HealthCheckRequest(), take=1)],
    **{
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo": [
            Call(request=ServerReflectionRequest(list_services=""))
        ]
        for version in ("v1", "v1alpha")
    },
    **{
        f"{OIP}/{name}": [Call(request=oip.ServerLiveRequest(), code=StatusCode.UNIMPLEMENTED)]
        for name in open_inference.UNSUPPORTED
    },
}

# Paths of the HTTP port by route, and the status for stored jobs without files.
PAGES = {
    "/metrics": ("/metrics", 200),
    "/": ("/", 200),
    "/live/files/{name}": ("/live/files/none", 404),
    "/login": ("/login", 200),
    "/logout": ("/logout", 405),
    "/live/v1/session": ("/live/v1/session", 200),
    "/live/v1/events": ("/live/v1/events", 200),
    "/live/v1/jobs/{job:[0-9a-z]{1,32}}": ("/live/v1/jobs/f7", 200),
    "/live/v1/jobs/{job:[0-9a-z]{1,32}}/epochs/{epoch:[0-9]{1,9}}/confusion": (
        "/live/v1/jobs/f7/epochs/1/confusion",
        409,
    ),
    "/live/v1/jobs/{job:[0-9a-z]{1,32}}/epochs/{epoch:[0-9]{1,9}}/examples": (
        "/live/v1/jobs/f8/epochs/1/examples",
        409,
    ),
    "/live/v1/images/{fingerprint:[0-9a-f]{64}}/{split:test|train}/{index:[0-9]{1,9}}.png": (
        f"/live/v1/images/{'f' * 64}/test/1.png",
        404,
    ),
    "/live/v1/sweeps/{sweep:[0-9a-z]{1,32}}": ("/live/v1/sweeps/s", 200),
}


def report(store: Store) -> None:
    """Makes all reports of a worker about a job, from its claim to its end."""
    attempts = store.attempts
    for _ in range(2):
        attempt = attempts.claim("c0", device="cpu").attempts
        attempts.record_started("c0", attempt, STARTED)
        attempts.requeue("c0", attempt)
    attempt = attempts.claim("c0", device="cpu").attempts
    attempts.record_epoch("c0", attempt, an_epoch(1))
    attempts.record_epoch("c0", attempt, an_epoch(1))  # a repeated epoch
    attempts.pause("c0", attempt, Paused(reason="STORAGE", message="the disk is full"))
    store.jobs.resume("c0")
    attempt = attempts.claim("c0", device="cpu").attempts
    attempts.record_epoch("c0", attempt, an_epoch(2))
    attempts.mark_dropped("c0", [1])
    attempts.finish("c0", attempt, JobState.SUCCEEDED)
    assert store.jobs.get_started("c0") == STARTED


# The measurement


@dataclass
class Work:
    """The statements of a call, how often each was run, and their instructions."""

    statements: Counter[str] = field(default_factory=Counter)
    parameters: dict[str, Any] = field(default_factory=dict)
    calls: int = 0

    @property
    def instructions(self) -> int:
        """The number of SQLite's virtual instructions."""
        return self.calls * STEPS

    def count(self) -> bool:
        """SQLite calls this every few instructions."""
        self.calls += 1
        return False


class Trace:
    """Counts the work of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._work = Work()
        sqlalchemy.event.listen(engine, "before_cursor_execute", self._record)

    def take(self) -> Work:
        """Returns the work since the last call."""
        work, self._work = self._work, Work()
        return work

    def _record(self, _connection: Any, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if statement.startswith(("PRAGMA", "BEGIN")):
            return
        work = self._work
        work.statements[statement] += 1
        work.parameters[statement] = values[0] if isinstance(values, list) else values
        # Counts until the next statement, and in a read until its end: rows are fetched later.
        cursor.connection.set_progress_handler(work.count, STEPS)


class Site:
    """A server with stored jobs, in a thread, whose scheduler and health checks do not run."""

    def __init__(self, folder: Path, count: int) -> None:
        data = DataDir(folder)
        self.database = data.database
        engine = open_database(data.database)
        prepare(engine, count)
        self.trace = Trace(engine)
        self.store = Store(engine)
        self.target, self.url, self.routes = "", "", frozenset[str]()
        self.methods = frozenset[str]()
        self.start = Work()
        self._settings = Settings(
            data_dir=folder,
            port=0,
            metrics_port=0,
            devices="cpu",
            spare_workers=0,
            min_free_disk_bytes=1 << 60,  # no job starts
        )
        self._core_arguments = (self._settings, data, self.store)
        self._loop = asyncio.new_event_loop()
        self._ready, self._stop = Future[None](), asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._ready.result(SECONDS)

    def close(self) -> None:
        """Stops the server."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def plans(self, work: Work) -> dict[str, list[str]]:
        """SQLite's query plan of each statement."""
        database = sqlite3.connect(self.database)
        return {
            statement: [
                row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            ]
            for statement, values in work.parameters.items()
        }

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._serve())
            except BaseException as error:
                self._ready.set_exception(error)
                raise

    async def _serve(self) -> None:
        known = KnownDatasets(sources={"tiny": "tiny"}, fingerprints={})
        core = Core(*self._core_arguments, known, AccessControl(self._settings))
        async with AsyncExitStack() as stack:
            stack.enter_context(core.data.locked())
            stack.callback(core.close)
            self.trace.take()
            scheduler = _make_scheduler(core)
            async with _scheduling(core, scheduler):
                await asyncio.sleep(0.2)  # and for its first read of the queue
            self.start = self.trace.take()
            predictor = make_predictor(core, stack)
            processes = ServingProcesses(
                self._settings,
                None,
                core.metrics.registry,
                access=core.access,
                on_restart=lambda: None,
            )
            servicers = _make_servicers(core, scheduler, predictor, processes, stack)
            sessions = Sessions(core.access)
            pages = make_pages(
                self._settings,
                access=core.access,
                sessions=sessions,
                store=core.store,
                notifier=core.notifier,
                catalog=core.catalog,
                dataset_cache=core.data.datasets,
                stack=stack,
            )
            self.routes = frozenset(str(getattr(route, "path", "")) for route in pages.routes)
            gate = HttpGate(core.access, sessions, pages.public)
            self.url = await stack.enter_async_context(_http_port(core, pages, gate, processes))
            server = GrpcServer(
                self._settings, servicers, core.metrics.grpc, core.access, meter=core.meter
            )
            self.target = f"127.0.0.1:{await server.start()}"
            self.methods = frozenset(
                f"/{sample.labels['grpc_service']}/{sample.labels['grpc_method']}"
                for family in core.metrics.grpc.collect()
                for sample in family.samples
                if "grpc_method" in sample.labels
            )
            self._ready.set_result(None)
            await self._stop.wait()
            core.notifier.close()
            await server.stop()


def prepare(engine: Engine, count: int) -> None:
    """Writes many finished jobs, half of the last of them without a model; a few of each kind."""
    fill(engine, count)
    fill(engine, count // 10, state=JobState.FAILED, prefix="x")
    with engine.begin() as connection:  # they failed before their first epoch
        connection.exec_driver_sql(
            "UPDATE jobs SET completed_epochs = 0, best_epoch = 0 WHERE state = 'failed'"
        )
        connection.exec_driver_sql(
            "DELETE FROM events WHERE kind = 'epoch' AND job_number IN"
            " (SELECT number FROM jobs WHERE state = 'failed')"
        )
    fill(engine, 60, prefix="e")
    fill(engine, 9, state=JobState.QUEUED, prefix="q")
    fill(engine, 1, state=JobState.PAUSED, prefix="p")
    fill(engine, 50, sweep_id="s", prefix="s")
    fill(engine, 30, sweep_id="d", prefix="d")
    with engine.begin() as connection:  # as many sweeps: copies of one, and of its counts
        connection.exec_driver_sql(
            "INSERT INTO sweeps (sweep_id, grid, options, is_cancelled, create_time, end_time,"
            " latest_sequence) SELECT 'o' || jobs.number, grid, sweeps.options, 0, 1, 1, 1"
            " FROM jobs JOIN sweeps ON sweeps.sweep_id = 'd' WHERE jobs.number <= ?",
            (count,),
        )
        connection.exec_driver_sql(
            "INSERT INTO job_counts SELECT 'o' || number, 'succeeded', 1, 1, 0"
            " FROM jobs WHERE number <= ?",
            (count,),
        )
    store = Store(engine)
    for sweep_id in "chr":
        grid = Grid(
            spec=TrainingSpec(dataset="tiny"), axes=(SweepAxis(field="seed", values=(1, 2, 3)),)
        )
        store.sweeps.create(
            SweepRequest(grid=grid, options=JobOptions()),
            sweep_id=sweep_id,
            job_ids=[f"{sweep_id}{number}x" for number in range(3)],
            request_id=None,
            max_queued=99,
        )
    store.sweeps.pause("r", Paused(reason="REQUESTED", message="a caller paused it"))
    store.jobs.create(
        TrainingSpec(dataset="tiny", epochs=2),
        JobOptions(),
        job_id="c0",
        request_id=None,
        max_queued=99,
    )


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Site]]:
    few, many = (Site(tmp_path_factory.mktemp("growth"), count) for count in (FEW, MANY))
    yield few, many
    few.close()
    many.close()


def check(sites: tuple[Site, Site], name: str, measure: Callable[[Site], Work]) -> None:
    """Compares the work of a call with few stored jobs and with many."""
    few, many = (measure(site) for site in sites)

    assert many.statements == few.statements, "other queries"
    times, more = SLACK
    allowed = few.instructions * times + more + MOST_PER_JOB.get(name, 0) * MANY
    assert many.instructions <= allowed, (few.instructions, many.instructions, many.statements)
    for statement, plan in sites[1].plans(many).items():
        assert not reads_all(statement, plan), (statement, plan)


def reads_all(statement: str, plan: Sequence[str]) -> bool:
    """Whether a statement scans a whole table or index, not only until its limit."""
    ends_at_limit = "LIMIT" in statement and not any("TEMP B-TREE FOR ORDER" in row for row in plan)
    scans = [row for row in plan if re.match(r"SCAN (jobs|events|sweeps|sweep_events)\b", row)]
    return (
        bool(scans)
        and not ends_at_limit
        and not any(re.search(known, statement) for known in WHOLE_SCANS)
    )


# The tests


def test_every_method_and_page_is_measured(sites: tuple[Site, Site]) -> None:
    assert set(CALLS) == sites[0].methods
    assert set(PAGES) == {"/metrics", *sites[0].routes}


def call(site: Site, path: str, sent: Call) -> Work:
    site.trace.take()
    answers(site, path, sent)
    return site.trace.take()


def answers(site: Site, path: str, sent: Call) -> list[bytes]:
    messages = []
    with grpc.insecure_channel(site.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        method: Any = channel.stream_stream(path)
        stream = method(iter([sent.request.SerializeToString()]), timeout=SECONDS)
        code = StatusCode.OK
        try:
            for message in stream:
                messages.append(message)
                if len(messages) == sent.take:
                    stream.cancel()
                    break
        except grpc.RpcError as error:
            code = error.code()
    assert code is sent.code, path
    return messages


@pytest.mark.parametrize("path", CALLS)
def test_no_method_reads_more_the_more_jobs_there_are(sites: tuple[Site, Site], path: str) -> None:
    for sent in CALLS[path]:
        check(sites, path, partial(call, path=path, sent=sent))


@pytest.mark.parametrize("path", CALLS)
def test_no_answer_is_larger_than_clients_take(sites: tuple[Site, Site], path: str) -> None:
    for sent in CALLS[path]:
        request: Any = type(sent.request)()
        request.CopyFrom(sent.request)
        if "page_size" in request.DESCRIPTOR.fields_by_name:
            request.page_size = 1_000
        if sent.take is None and not is_write(path):
            sizes = [
                len(message) for message in answers(sites[1], path, replace(sent, request=request))
            ]
            assert max(sizes, default=0) <= 4 << 20


def is_write(path: str) -> bool:
    return any(verb in path for verb in ("Cancel", "Pause", "Resume", "Delete"))


def fetch(site: Site, path: str, status: int) -> Work:
    site.trace.take()
    try:
        with urllib.request.urlopen(site.url + path, timeout=SECONDS) as response:  # noqa: S310
            response.read1()
            answered = response.status
    except urllib.error.HTTPError as error:
        answered = error.code
    assert answered == status, path
    return site.trace.take()


@pytest.mark.parametrize("route", PAGES)
def test_no_page_reads_more_the_more_jobs_there_are(sites: tuple[Site, Site], route: str) -> None:
    path, status = PAGES[route]
    check(sites, route, partial(fetch, path=path, status=status))


def test_neither_does_the_start_nor_the_scheduler(sites: tuple[Site, Site]) -> None:
    check(sites, "the start", lambda site: site.start)


def test_nor_do_the_reports_of_a_worker(sites: tuple[Site, Site]) -> None:
    def work(site: Site) -> Work:
        site.trace.take()
        report(site.store)
        return site.trace.take()

    check(sites, "reports", work)
