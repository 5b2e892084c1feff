"""Sweeps over a real channel: the contract, restarts, lost workers, capacity."""

import re
import signal
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict, ParseDict
from google.rpc import error_details_pb2

from leadline.v1.inference_service_pb2 import GetModelRequest
from leadline.v1.job_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    JobOptions,
)
from leadline.v1.sweep_pb2 import (
    SWEEP_STATE_CANCELLED,
    SWEEP_STATE_PAUSED,
    SWEEP_STATE_QUEUED,
    SWEEP_STATE_RUNNING,
    SWEEP_STATE_SUCCEEDED,
    MedianStoppingRule,
    Sweep,
    SweepAxis,
    SweepEvent,
)
from leadline.v1.training_service_pb2 import (
    CancelJobRequest,
    CancelSweepRequest,
    DeleteJobRequest,
    DeleteSweepRequest,
    GetJobRequest,
    GetSweepRequest,
    ListJobsRequest,
    ListSweepsRequest,
    PauseSweepRequest,
    ResumeSweepRequest,
    TrainJobRequest,
    TrainSweepRequest,
    WatchJobRequest,
    WatchSweepRequest,
)
from support.datasets import specs_of
from support.servers import LiveServer, ServerFactory
from support.wire import Stubs, connect, details, reason, violations

tiny_spec = specs_of(__file__)

EPOCHS = 4
LONG = 10_000


def axes(**values: list[Any]) -> list[SweepAxis]:
    return [
        ParseDict({"field": field, "values": given}, SweepAxis()) for field, given in values.items()
    ]


def a_request(*, options: dict[str, Any] | None = None, **changes: Any) -> TrainSweepRequest:
    """Two seeds of two epochs, unless the options or `changes` of the spec say otherwise."""
    given = {"axes": axes(seed=[0, 1]), **(options or {})}
    return TrainSweepRequest(spec=tiny_spec(**{"epochs": 2, **changes}), **given)


def begin(stubs: Stubs, request: TrainSweepRequest) -> SweepEvent:
    """Submits a sweep and reads its first event; the sweep continues."""
    stream = stubs.training.TrainSweep(request, timeout=60)
    first = next(iter(stream))
    stream.cancel()
    return first


def follow(stubs: Stubs, name: str, after: int = 0) -> list[SweepEvent]:
    request = WatchSweepRequest(name=name, after_sequence=after)
    return durable(stubs.training.WatchSweep(request, timeout=60))


def durable(stream: Iterable[SweepEvent]) -> list[SweepEvent]:
    """Returns the durable events; a silent stream also has progress."""
    return [event for event in stream if event.sequence]


def get(stubs: Stubs, name: str) -> Sweep:
    return stubs.training.GetSweep(GetSweepRequest(name=name), timeout=10)


def steer(stubs: Stubs, name: str) -> dict[str, Callable[[], Any]]:
    training = stubs.training
    return {
        "cancel": lambda: training.CancelSweep(CancelSweepRequest(name=name), timeout=10),
        "pause": lambda: training.PauseSweep(PauseSweepRequest(name=name), timeout=10),
        "resume": lambda: training.ResumeSweep(ResumeSweepRequest(name=name), timeout=10),
        "delete": lambda: training.DeleteSweep(DeleteSweepRequest(name=name), timeout=10),
    }


def eventually(stubs: Stubs, name: str, holds: Callable[[Sweep], bool]) -> Sweep:
    """Returns the sweep when a condition holds for it."""
    deadline = time.monotonic() + 60
    while not holds(sweep := get(stubs, name)):
        assert time.monotonic() < deadline, sweep
        time.sleep(0.05)
    return sweep


@pytest.fixture(scope="module")
def busy(busy_server: LiveServer) -> Iterator[Stubs]:
    """Stubs of the server that starts no job."""
    stubs = connect(busy_server.target)
    yield stubs
    stubs.channel.close()


@pytest.fixture(scope="module")
def swept(stubs: Stubs) -> list[SweepEvent]:
    """All events of a succeeded sweep: two depths with two seeds each."""
    request = a_request(options={"axes": axes(blocks=[1, 2], seed=[0, 1])}, epochs=EPOCHS)
    return durable(stubs.training.TrainSweep(request, timeout=240))


def test_the_stream_has_every_event_of_every_job(stubs: Stubs, swept: list[SweepEvent]) -> None:
    first, *between, last = swept
    jobs = [job.job for job in first.queued.jobs]

    assert [event.sequence for event in swept] == list(range(1, len(swept) + 1))
    assert [MessageToDict(job.values) for job in first.queued.jobs] == [
        {"blocks": blocks, "seed": seed} for blocks in (1, 2) for seed in (0, 1)
    ]
    for job in jobs:
        own = list(stubs.training.WatchJob(WatchJobRequest(name=job, after_sequence=1), timeout=10))
        assert [event.job for event in between if event.job.job == job] == own
        kinds = [event.WhichOneof("event") for event in own]
        assert kinds == ["started", *["epoch"] * EPOCHS, "finished"]
    assert len(between) == len(jobs) * (EPOCHS + 2)
    assert last.finished.state == SWEEP_STATE_SUCCEEDED
    assert last.finished.counts.succeeded == 4


def test_the_sweep_agrees_with_its_last_event(stubs: Stubs, swept: list[SweepEvent]) -> None:
    sweep = get(stubs, swept[0].sweep)

    assert sweep.state == SWEEP_STATE_SUCCEEDED
    assert sweep.table == swept[-1].finished.table
    assert sweep.counts == swept[-1].finished.counts
    assert sweep.axes == swept[0].queued.axes
    assert sweep.spec == swept[0].queued.spec
    assert sweep.latest_sequence == swept[-1].sequence
    assert sweep.end_time.ToNanoseconds() >= sweep.create_time.ToNanoseconds()
    assert not sweep.HasField("median_stopping")


def test_the_table_summarizes_the_results_of_the_jobs(
    stubs: Stubs, swept: list[SweepEvent]
) -> None:
    table = swept[-1].finished.table
    variant = table.variants[1]

    jobs = [stubs.training.GetJob(GetJobRequest(name=job), timeout=10) for job in variant.jobs]
    bests = [job.best_test_accuracy for job in jobs]
    lasts = [job.latest_epoch.test_accuracy for job in jobs]

    assert MessageToDict(variant.values) == {"blocks": 2}
    assert [(job.spec.blocks, job.spec.seed) for job in jobs] == [(2, 0), (2, 1)]
    assert all(job.sweep == swept[0].sweep for job in jobs)
    assert variant.finished_jobs == variant.best_test_accuracy.count == 2
    assert variant.best_test_accuracy.mean == pytest.approx(sum(bests) / 2)
    assert variant.best_test_accuracy.standard_deviation == pytest.approx(
        abs(bests[0] - bests[1]) / 2**0.5
    )
    assert variant.last_test_accuracy.mean == pytest.approx(sum(lasts) / 2)
    assert (variant.best_test_accuracy.min, variant.best_test_accuracy.max) == (
        min(bests),
        max(bests),
    )
    best = max(table.variants, key=lambda one: one.best_test_accuracy.mean)
    assert MessageToDict(best.values) == {"blocks": table.best_depths[0].blocks}
    assert 0 <= table.best_depths[0].confidence <= 1
    assert stubs.inference.GetModel(
        GetModelRequest(name=variant.best_job.replace("jobs/", "models/")), timeout=10
    ).best_test_accuracy == max(bests)


def test_a_watcher_goes_on_anywhere(stubs: Stubs, swept: list[SweepEvent]) -> None:
    name = swept[0].sweep

    for after in (0, 7, len(swept) - 1, len(swept)):
        assert follow(stubs, name, after) == swept[after:]
    for after in (-1, len(swept) + 1):
        with pytest.raises(grpc.RpcError) as caught:
            follow(stubs, name, after)
        assert list(violations(caught.value)) == ["after_sequence"]


def test_the_same_request_id_follows_the_same_sweep(busy: Stubs) -> None:
    request_id = str(uuid.uuid4())
    first = begin(busy, a_request(options={"request_id": request_id}))

    again = begin(busy, a_request(options={"request_id": request_id}))
    with pytest.raises(grpc.RpcError) as caught:
        begin(busy, a_request(options={"request_id": request_id}, epochs=3))

    assert again == first
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert reason(caught.value) == "REQUEST_ID_REUSED"
    (resource,) = [
        detail
        for detail in details(caught.value)
        if isinstance(detail, error_details_pb2.ResourceInfo)
    ]
    assert (resource.resource_type, resource.resource_name) == ("sweep", first.sweep)
    steer(busy, first.sweep)["cancel"]()


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"axes": []}, ["axes"]),
        ({"axes": axes(depth=[1])}, ["axes[0].field"]),
        ({"axes": axes(blocks=["two", None, 2])}, ["axes[0].values[0]", "axes[0].values[1]"]),
        ({"axes": axes(blocks=[2, 65], seed=[-1])}, ["axes[0].values[1]", "axes[1].values[0]"]),
        ({"axes": axes(seed=list(range(1_001)))}, ["axes"]),
        ({"options": JobOptions(priority=101)}, ["options.priority"]),
        (
            {"median_stopping": MedianStoppingRule(grace_epochs=0, min_completed_jobs=1_001)},
            ["median_stopping.grace_epochs", "median_stopping.min_completed_jobs"],
        ),
        ({"request_id": "one"}, ["request_id"]),
        ({"after_sequence": -1}, ["after_sequence"]),
        ({"progress_interval": Duration(nanos=1)}, ["progress_interval"]),
    ],
)
def test_each_wrong_field_is_named_and_nothing_is_made(
    busy: Stubs, options: dict[str, Any], fields: list[str]
) -> None:
    before = busy.training.ListSweeps(ListSweepsRequest(), timeout=10)

    with pytest.raises(grpc.RpcError) as caught:
        begin(busy, a_request(options=options))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert sorted(violations(caught.value)) == sorted(fields)
    assert busy.training.ListSweeps(ListSweepsRequest(), timeout=10) == before


@pytest.mark.parametrize("name", ["sweeps/none", "sweeps/", "jobs/abc"])
def test_a_missing_sweep_is_not_found(busy: Stubs, name: str) -> None:
    is_name = name == "sweeps/none"
    listing = ListJobsRequest(sweep=name)
    calls: list[Callable[[], object]] = [
        *steer(busy, name).values(),
        lambda: get(busy, name),
        lambda: follow(busy, name),
        lambda: busy.training.ListJobs(listing, timeout=10),
    ]

    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert reason(caught.value) == ("SWEEP_NOT_FOUND" if is_name else "INVALID_FIELD")


def test_a_cancelled_sweep_frees_its_device_and_can_be_deleted(
    stubs: Stubs, live_server: LiveServer
) -> None:
    request = a_request(epochs=LONG, options={"progress_interval": Duration(nanos=50_000_000)})
    stream = stubs.training.TrainSweep(request, timeout=60)
    name = next(iter(stream)).sweep
    progress = next(
        event.progress for event in stream if event.HasField("progress") and event.progress.running
    )
    stream.cancel()
    running = eventually(stubs, name, lambda one: any(job.completed_epochs for job in one.jobs))
    (begun, *_) = [job.job for job in running.jobs if job.completed_epochs]
    folder = live_server.data_dir / begun.replace("jobs/", "models/")
    calls = steer(stubs, name)

    refused = []
    for call in (
        calls["delete"],
        lambda: stubs.training.DeleteJob(DeleteJobRequest(name=begun), timeout=10),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        refused.append(reason(caught.value))
    cancelled = calls["cancel"]()
    there = folder.is_dir()
    other = list(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=1)), timeout=60))

    assert (progress.counts.running, progress.counts.queued) == (1, 1)
    assert refused == ["SWEEP_NOT_FINISHED", "JOB_IN_SWEEP"]
    assert running.state == SWEEP_STATE_RUNNING
    assert cancelled.state == SWEEP_STATE_CANCELLED
    assert {job.state for job in cancelled.jobs} == {JOB_STATE_CANCELLED}
    job = stubs.training.GetJob(GetJobRequest(name=begun), timeout=10)
    assert job.cancellation.reason == "REQUESTED"
    assert other[-1].finished.state == JOB_STATE_SUCCEEDED
    assert calls["cancel"]() == cancelled
    assert follow(stubs, name)[-1].finished.state == SWEEP_STATE_CANCELLED
    for refuse in (calls["pause"], calls["resume"]):
        with pytest.raises(grpc.RpcError) as caught:
            refuse()
        assert reason(caught.value) == "ILLEGAL_SWEEP_STATE"
    calls["delete"]()
    assert there
    assert not folder.exists()
    with pytest.raises(grpc.RpcError) as caught:
        get(stubs, name)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_paused_sweep_goes_on_when_it_is_resumed_without_a_job_that_is_cancelled(
    stubs: Stubs,
) -> None:
    first = begin(stubs, a_request(epochs=1))
    calls = steer(stubs, first.sweep)

    paused = calls["pause"]()
    again = calls["pause"]()
    stubs.training.CancelJob(CancelJobRequest(name=first.queued.jobs[-1].job), timeout=10)
    resumed = calls["resume"]()
    events = follow(stubs, first.sweep)
    finished = events[-1].finished

    assert paused.state == again.state == SWEEP_STATE_PAUSED
    assert again.latest_sequence == paused.latest_sequence
    assert resumed.state in {SWEEP_STATE_QUEUED, SWEEP_STATE_RUNNING}
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert finished.state == SWEEP_STATE_SUCCEEDED
    assert (finished.counts.succeeded, finished.counts.cancelled) == (1, 1)
    assert finished.counts.median_stopped == 0


def test_sweeps_and_their_jobs_are_listed_page_by_page(busy: Stubs) -> None:
    begun = [begin(busy, a_request()) for _ in range(3)]

    names: list[str] = []
    token = ""
    while not names or token:
        request = ListSweepsRequest(page_size=1, page_token=token)
        page = busy.training.ListSweeps(request, timeout=10)
        assert all(not sweep.jobs and not sweep.HasField("table") for sweep in page.sweeps)
        names += [sweep.name for sweep in page.sweeps]
        token = page.next_page_token
    jobs = busy.training.ListJobs(ListJobsRequest(sweep=begun[0].sweep), timeout=10).jobs

    assert names[:3] == [sweep.sweep for sweep in reversed(begun)]
    assert len(set(names)) == len(names)
    assert [job.name for job in jobs] == [job.job for job in reversed(begun[0].queued.jobs)]
    for sweep in begun:
        steer(busy, sweep.sweep)["cancel"]()


@pytest.fixture
def wide_server(server_factory: ServerFactory) -> Iterator[Stubs]:
    """A server with two training threads."""
    stubs = connect(server_factory("--worker-threads=2", "--spare-workers=0").target)
    yield stubs
    stubs.channel.close()


def test_as_many_jobs_of_a_sweep_run_as_there_are_threads_and_each_has_one(
    wide_server: Stubs,
) -> None:
    stubs = wide_server
    request = a_request(options={"axes": axes(seed=[0, 1, 2, 3])}, epochs=LONG)
    name = begin(stubs, request).sweep

    both = eventually(
        stubs, name, lambda one: sum(job.completed_epochs > 0 for job in one.jobs) >= 2
    )
    states = [job.state for job in both.jobs]
    threads = [
        stubs.training.GetJob(GetJobRequest(name=job.job), timeout=10).environment.threads
        for job in both.jobs[:2]
    ]
    urgent = stubs.training.TrainJob(
        TrainJobRequest(spec=tiny_spec(epochs=1), options=JobOptions(priority=1)), timeout=60
    )
    queued = next(iter(urgent))
    # It needs all threads, so no further jobs of the sweep start.
    stubs.training.CancelJob(CancelJobRequest(name=both.jobs[0].job), timeout=10)
    waiting = get(stubs, name)
    stubs.training.CancelJob(CancelJobRequest(name=both.jobs[1].job), timeout=10)
    ordinary = list(urgent)
    steer(stubs, name)["cancel"]()

    assert states == [JOB_STATE_RUNNING] * 2 + [JOB_STATE_QUEUED] * 2
    assert threads == [1, 1]
    assert queued.queued.queue_position == 0
    assert [job.state for job in waiting.jobs[2:]] == [JOB_STATE_QUEUED] * 2
    assert [one.started.environment.threads for one in ordinary if one.HasField("started")] == [2]
    assert ordinary[-1].finished.state == JOB_STATE_SUCCEEDED


def test_hopeless_jobs_are_stopped_on_request(stubs: Stubs) -> None:
    rule = MedianStoppingRule(grace_epochs=1, min_completed_jobs=1)
    # The first one learns; a learning rate of 1e-9 prevents learning.
    request = a_request(
        options={"axes": axes(learning_rate=[0.01, 1e-9]), "median_stopping": rule}, epochs=6
    )

    events = durable(stubs.training.TrainSweep(request, timeout=60))
    finished = events[-1].finished
    hopeless = stubs.training.GetJob(GetJobRequest(name=events[0].queued.jobs[1].job), timeout=10)

    assert finished.state == SWEEP_STATE_SUCCEEDED
    assert (finished.counts.succeeded, finished.counts.median_stopped) == (1, 1)
    assert hopeless.state == JOB_STATE_CANCELLED
    assert hopeless.cancellation.reason == "MEDIAN_STOPPED"
    assert 1 <= hopeless.completed_epochs < 6
    assert finished.table.variants[1].best_test_accuracy.count == 1
    assert get(stubs, events[0].sweep).jobs[1].median_stopped
    model = GetModelRequest(name=hopeless.model)
    assert len(stubs.inference.GetModel(model, timeout=10).epochs) == hopeless.completed_epochs


def test_a_sweep_outlives_kills_of_its_server_and_its_workers(
    server_factory: ServerFactory, swept: list[SweepEvent]
) -> None:
    server = server_factory("--spare-workers=0")
    interrupted = connect(server.target)
    # The first variant of the uninterrupted sweep.
    name = begin(interrupted, a_request(epochs=EPOCHS)).sweep
    seen: list[SweepEvent] = []

    for after_epochs in (1, EPOCHS + 1):
        stream = interrupted.training.WatchSweep(
            WatchSweepRequest(name=name, after_sequence=len(seen)), timeout=60
        )
        while sum(event.job.HasField("epoch") for event in seen) < after_epochs:
            seen += durable([next(stream)])
        stream.cancel()
        if after_epochs == 1:
            for worker in psutil.Process(server.process.pid).children():
                worker.kill()
        else:
            server.stop(signal.SIGKILL)
    interrupted.channel.close()
    interrupted = connect(server_factory("--spare-workers=0").target)
    seen += follow(interrupted, name, after=len(seen))

    assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
    assert weights(seen) == weights(swept)[:2]
    assert seen[-1].finished.table.variants[0].best_test_accuracy == (
        swept[-1].finished.table.variants[0].best_test_accuracy
    )
    assert follow(interrupted, name) == seen
    interrupted.channel.close()


def weights(events: list[SweepEvent]) -> list[list[str]]:
    """Returns the hashes of the epochs' weights, job by job in the order of the grid."""
    return [
        [
            event.job.epoch.weights_sha256
            for event in events
            if event.job.job == job.job and event.job.HasField("epoch")
        ]
        for job in events[0].queued.jobs
    ]


def test_a_sweep_has_a_job_for_each_id_of_the_usual_kind(swept: list[SweepEvent]) -> None:
    assert re.fullmatch("sweeps/[a-z0-9]{10}", swept[0].sweep)
    assert len({job.job for job in swept[0].queued.jobs}) == 4
