"""Controlling jobs over a real channel: pause, resume, delete, priority, limits, retention."""

import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from leadline.models.images import encode_png
from leadline.models.simd.instruction_set import instruction_set
from leadline.v1.inference_service_pb2 import EncodedImages, GetModelRequest, PredictRequest
from leadline.v1.inspection_service_pb2 import ListMisclassifiedRequest
from leadline.v1.job_pb2 import (
    JOB_PHASE_PAUSED,
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_PAUSED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    RETENTION_POLICY_ALL,
    RETENTION_POLICY_BEST_AND_LAST,
    RETENTION_POLICY_EVERY_NTH,
    JobEvent,
    JobOptions,
    Retention,
)
from leadline.v1.model_pb2 import Model
from leadline.v1.training_service_pb2 import (
    CancelJobRequest,
    DeleteJobRequest,
    GetJobRequest,
    PauseJobRequest,
    ResumeJobRequest,
    TrainJobRequest,
    WatchJobRequest,
)
from support.datasets import specs_of
from support.servers import LiveServer, ServerFactory
from support.wire import Stubs, connect, kind_and_sequence, reason, violations

tiny_spec = specs_of(__file__)

LONG = 10_000


def begin(
    stubs: Stubs, count: int = 1, options: JobOptions | None = None, **changes: object
) -> list[JobEvent]:
    """Submits a job and reads its first events; the job continues."""
    request = TrainJobRequest(spec=tiny_spec(**changes), options=options)
    stream = stubs.training.TrainJob(request, timeout=60)
    events = [next(iter(stream)) for _ in range(count)]
    stream.cancel()
    return events


def follow(stubs: Stubs, name: str, after: int = 0) -> list[JobEvent]:
    """Returns the events from a sequence to the last."""
    request = WatchJobRequest(name=name, after_sequence=after)
    return list(stubs.training.WatchJob(request, timeout=60))


def hashes(events: list[JobEvent]) -> list[str]:
    """Returns the hashes of each epoch's weights."""
    return [event.epoch.weights_sha256 for event in events if event.HasField("epoch")]


@pytest.fixture(scope="module")
def straight(stubs: Stubs) -> list[JobEvent]:
    """All events of an uninterrupted job of 14 epochs and 2 blocks."""
    request = TrainJobRequest(spec=tiny_spec(epochs=14, blocks=2))
    return list(stubs.training.TrainJob(request, timeout=60))


def test_a_paused_job_goes_on_to_the_same_weights(stubs: Stubs, straight: list[JobEvent]) -> None:
    first = begin(stubs, 3, epochs=14, blocks=2)
    name = first[0].job

    paused = stubs.training.PauseJob(PauseJobRequest(name=name), timeout=10)
    again = stubs.training.PauseJob(PauseJobRequest(name=name), timeout=10)
    resumed = stubs.training.ResumeJob(ResumeJobRequest(name=name), timeout=10)
    events = follow(stubs, name)

    assert (paused.state, paused.pause.reason) == (JOB_STATE_PAUSED, "REQUESTED")
    assert again == paused
    assert resumed.state in {JOB_STATE_QUEUED, JOB_STATE_RUNNING}
    assert not resumed.HasField("pause")
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds.index("resumed") == kinds.index("paused") + 1
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert hashes(events) == hashes(straight)
    assert events[-1].finished.state == JOB_STATE_SUCCEEDED


def test_a_paused_job_frees_its_device_and_can_be_cancelled(stubs: Stubs) -> None:
    (queued, *_) = begin(stubs, 3, epochs=LONG)
    stubs.training.PauseJob(PauseJobRequest(name=queued.job), timeout=10)

    other = list(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=1)), timeout=60))
    cancelled = stubs.training.CancelJob(CancelJobRequest(name=queued.job), timeout=10)

    assert other[-1].finished.state == JOB_STATE_SUCCEEDED
    assert cancelled.state == JOB_STATE_CANCELLED
    with pytest.raises(grpc.RpcError) as caught:
        stubs.training.ResumeJob(ResumeJobRequest(name=queued.job), timeout=10)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_quiet_stream_carries_keepalives(server_factory: ServerFactory) -> None:
    stubs = connect(server_factory("--stream-keepalive-seconds=0.2").target)
    (queued, *_) = begin(stubs, 3, epochs=LONG)
    stubs.training.PauseJob(PauseJobRequest(name=queued.job), timeout=10)

    stream = stubs.training.WatchJob(WatchJobRequest(name=queued.job), timeout=60)
    quiet = [event for _, event in zip(range(8), stream, strict=False)][-3:]

    assert [(event.sequence, event.progress.phase) for event in quiet] == [
        (0, JOB_PHASE_PAUSED)
    ] * 3


def test_a_deleted_job_is_gone_with_its_files(stubs: Stubs, live_server: LiveServer) -> None:
    events = list(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=1)), timeout=60))
    name, model = events[0].job, events[-1].finished.model
    folder = live_server.data_dir / model
    assert folder.is_dir()

    stubs.training.DeleteJob(DeleteJobRequest(name=name), timeout=10)

    assert not folder.exists()
    calls: list[Callable[[], object]] = [
        lambda: stubs.training.GetJob(GetJobRequest(name=name), timeout=10),
        lambda: follow(stubs, name),
        lambda: stubs.training.DeleteJob(DeleteJobRequest(name=name), timeout=10),
        lambda: stubs.inference.GetModel(GetModelRequest(name=model), timeout=10),
        lambda: stubs.inspection.ListMisclassified(
            ListMisclassifiedRequest(model=model), timeout=10
        ),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_running_or_paused_job_cannot_be_deleted(stubs: Stubs) -> None:
    (queued, *_) = begin(stubs, 2, epochs=LONG)
    for prepare in (
        lambda: None,
        lambda: stubs.training.PauseJob(PauseJobRequest(name=queued.job), timeout=10),
    ):
        prepare()
        with pytest.raises(grpc.RpcError) as caught:
            stubs.training.DeleteJob(DeleteJobRequest(name=queued.job), timeout=10)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert reason(caught.value) == "JOB_NOT_FINISHED"
    stubs.training.CancelJob(CancelJobRequest(name=queued.job), timeout=10)


def test_the_highest_priority_starts_first(stubs: Stubs) -> None:
    (running, *_) = begin(stubs, 2, epochs=LONG)
    low, high, middle = (
        begin(stubs, options=JobOptions(priority=priority), epochs=1)[0] for priority in (-5, 5, 0)
    )
    positions = [
        stubs.training.GetJob(GetJobRequest(name=event.job), timeout=10).queue_position
        for event in (low, high, middle)
    ]

    stubs.training.CancelJob(CancelJobRequest(name=running.job), timeout=10)
    follow(stubs, low.job)
    started = [
        stubs.training.GetJob(GetJobRequest(name=event.job), timeout=10).start_time
        for event in (low, high, middle)
    ]

    assert [event.queued.queue_position for event in (low, high, middle)] == [0, 0, 1]
    assert positions == [2, 0, 1]
    order = [moment.ToNanoseconds() for moment in started]
    assert order[1] < order[2] < order[0]


def test_a_job_beyond_its_time_limit_fails_and_keeps_its_epochs(stubs: Stubs) -> None:
    options = JobOptions(time_limit=Duration(seconds=6))
    (queued, *_) = begin(stubs, options=options, epochs=LONG)

    events = follow(stubs, queued.job)
    job = stubs.training.GetJob(GetJobRequest(name=queued.job), timeout=10)

    assert events[-1].finished.state == job.state == JOB_STATE_FAILED
    assert job.failure.reason == "DEADLINE_EXCEEDED"
    assert "6 s" in job.failure.message
    assert job.deadline.ToSeconds() == (job.create_time.ToNanoseconds() + 6_000_000_000) // 10**9
    assert job.completed_epochs == sum(event.HasField("epoch") for event in events)


@pytest.mark.parametrize(
    ("retention", "expected"),
    [
        (Retention(policy=RETENTION_POLICY_ALL), {1, 2, 3, 4, 5, 6, 7}),
        (Retention(policy=RETENTION_POLICY_BEST_AND_LAST), {7}),
        (Retention(policy=RETENTION_POLICY_EVERY_NTH, every_nth=3), {3, 6, 7}),
    ],
)
def test_retention_keeps_the_best_the_last_and_the_requested_epochs(
    stubs: Stubs, live_server: LiveServer, retention: Retention, expected: set[int]
) -> None:
    # Its variant is unique: it must not become the best model of a variant in other tests.
    spec = tiny_spec(epochs=7, blocks=4)
    request = TrainJobRequest(spec=spec, options=JobOptions(retention=retention))
    last = list(stubs.training.TrainJob(request, timeout=60))[-1].finished

    model = wait_for_files(stubs, live_server.data_dir, last.model, expected | {last.best_epoch})

    kept = {epoch.epoch for epoch in model.epochs if epoch.kept}
    assert kept == expected | {last.best_epoch}
    image = EncodedImages(images=[encode_png(np.zeros((32, 32, 3), np.uint8))])
    for epoch in model.epochs:
        request_ = PredictRequest(model=epoch.name, encoded=image)
        if epoch.kept:
            assert stubs.inference.Predict(request_, timeout=10).model == epoch.name
            continue
        with pytest.raises(grpc.RpcError) as caught:
            stubs.inference.Predict(request_, timeout=10)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert "retention" in (caught.value.details() or "")


def wait_for_files(stubs: Stubs, data_dir: Path, model: str, epochs: set[int]) -> Model:
    """Returns the model after the files of all other epochs are gone."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        kept = {int(path.stem[-5:]) for path in (data_dir / model).rglob("epoch-*.checkpoint")}
        if kept == epochs:
            return stubs.inference.GetModel(GetModelRequest(name=model), timeout=10)
        time.sleep(0.05)
    pytest.fail(f"the files of {kept} are there instead of those of {epochs}")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (JobOptions(priority=101), "options.priority"),
        (JobOptions(priority=-101), "options.priority"),
        (JobOptions(time_limit=Duration()), "options.time_limit"),
        (JobOptions(time_limit=Duration(seconds=-5)), "options.time_limit"),
        (JobOptions(retention=Retention(policy=9)), "options.retention.policy"),  # type: ignore[arg-type]
        (
            JobOptions(retention=Retention(policy=RETENTION_POLICY_EVERY_NTH)),
            "options.retention.every_nth",
        ),
        (JobOptions(retention=Retention(every_nth=2)), "options.retention.policy"),
        (
            JobOptions(retention=Retention(policy=RETENTION_POLICY_ALL, every_nth=2)),
            "options.retention.every_nth",
        ),
    ],
)
def test_wrong_options_are_refused(stubs: Stubs, options: JobOptions, field: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        begin(stubs, options=options)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert list(violations(caught.value)) == [field]


def test_a_job_records_its_environment(stubs: Stubs, trained: list[JobEvent]) -> None:
    job = stubs.training.GetJob(GetJobRequest(name=trained[0].job), timeout=10)

    assert job.environment == trained[1].started.environment
    assert job.environment.threads == 1
    assert job.environment.torch_version
    assert job.environment.leadline_version
    assert job.environment.python_version
    assert job.environment.instruction_set == instruction_set().value


@pytest.mark.parametrize("damaged", ["newest", "all"])
def test_a_damaged_checkpoint_is_passed_over_and_made_again(
    server_factory: ServerFactory, straight: list[JobEvent], damaged: str
) -> None:
    server = server_factory()
    stubs = connect(server.target)
    request = TrainJobRequest(spec=tiny_spec(epochs=14, blocks=2))
    stream = stubs.training.TrainJob(request, timeout=60)
    events = [next(iter(stream)) for _ in range(5)]
    name = events[0].job
    stubs.training.PauseJob(PauseJobRequest(name=name), timeout=10)
    stream.cancel()
    job = stubs.training.GetJob(GetJobRequest(name=name), timeout=10)
    files = sorted(server.data_dir.rglob("epoch-?????.checkpoint"))
    for path in files if damaged == "all" else files[-1:]:
        path.write_bytes(path.read_bytes()[:1000])

    stubs.training.ResumeJob(ResumeJobRequest(name=name), timeout=10)
    rest = follow(stubs, name)

    assert len(files) == job.completed_epochs
    assert [kind for kind, _ in kind_and_sequence(rest)].count("epoch") == 14
    assert hashes(rest) == hashes(straight)
    assert rest[-1].finished.state == JOB_STATE_SUCCEEDED


def test_a_queued_job_can_be_paused(stubs: Stubs) -> None:
    (running, *_) = begin(stubs, 2, epochs=LONG)
    (waiting, *_) = begin(stubs, epochs=1)

    paused = stubs.training.PauseJob(PauseJobRequest(name=waiting.job), timeout=10)
    stubs.training.CancelJob(CancelJobRequest(name=running.job), timeout=10)
    list(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=1)), timeout=60))
    still = stubs.training.GetJob(GetJobRequest(name=waiting.job), timeout=10)
    stubs.training.ResumeJob(ResumeJobRequest(name=waiting.job), timeout=10)

    assert paused.state == still.state == JOB_STATE_PAUSED
    assert kind_and_sequence(follow(stubs, waiting.job)) == [
        *(("queued", 1), ("paused", 2), ("resumed", 3), ("started", 4), ("epoch", 5)),
        ("finished", 6),
    ]
    assert running.job != waiting.job
    assert still.state != JOB_STATE_RUNNING


def test_deleting_a_job_whose_worker_lives_harms_no_other_job(
    stubs: Stubs, live_server: LiveServer
) -> None:
    for _ in range(5):
        (queued, *_) = begin(stubs, epochs=LONG)
        stubs.training.PauseJob(PauseJobRequest(name=queued.job), timeout=10)
        stubs.training.ResumeJob(ResumeJobRequest(name=queued.job), timeout=10)
        stubs.training.CancelJob(CancelJobRequest(name=queued.job), timeout=10)
        stubs.training.DeleteJob(DeleteJobRequest(name=queued.job), timeout=10)

    last = list(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=1)), timeout=60))[-1]

    assert last.finished.state == JOB_STATE_SUCCEEDED
    assert "never retrieved" not in live_server.log.read_text()
