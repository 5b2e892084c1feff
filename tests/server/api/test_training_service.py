import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from leadline.v1.job_pb2 import (
    JOB_PHASE_TRAINING,
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    Job,
    JobEvent,
)
from leadline.v1.training_service_pb2 import (
    CancelJobRequest,
    GetJobRequest,
    ListJobsRequest,
    TrainJobRequest,
    WatchJobRequest,
)
from leadline.v1.training_spec_pb2 import (
    AUGMENTATION_NONE,
    INITIALIZATION_DEFAULT,
    OPTIMIZER_ADAM,
    OPTIMIZER_SGD,
    PRECISION_FLOAT32,
    SCHEDULE_CONSTANT,
    TrainingSpec,
)
from support.datasets import specs_of
from support.wire import Stubs, details, kind_and_sequence, reason, violations

tiny_spec = specs_of(__file__)

LONG = 10_000

# The default options beyond the notebook's protocol.
NOTHING_BEYOND: dict[str, Any] = {
    "block_convolutions": 1,
    "residual": False,
    "initialization": INITIALIZATION_DEFAULT,
    "schedule": SCHEDULE_CONSTANT,
    "nesterov": False,
    "augmentation": AUGMENTATION_NONE,
    "patience": 0,
    "precision": PRECISION_FLOAT32,
    "diagnostics": False,
}


def submit(stubs: Stubs, spec: TrainingSpec) -> str:
    """Submits a job, cancels its stream, and returns its name."""
    stream = stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=60)
    event = next(iter(stream))
    stream.cancel()
    return event.job


def wait_for(stubs: Stubs, name: str, condition: Callable[[Job], bool]) -> Job:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job = stubs.training.GetJob(GetJobRequest(name=name), timeout=10)
        if condition(job):
            return job
        time.sleep(0.02)
    pytest.fail(f"{name} did not get there: {job}")


def test_a_job_has_numbered_events_from_queued_to_finished(trained: list[JobEvent]) -> None:
    assert kind_and_sequence(trained) == [
        *(("queued", 1), ("started", 2), ("epoch", 3), ("epoch", 4), ("epoch", 5)),
        ("finished", 6),
    ]
    assert len({event.job for event in trained}) == 1
    assert [event.epoch.epoch for event in trained[2:5]] == [1, 2, 3]


def test_the_events_have_the_request_and_the_results(trained: list[JobEvent]) -> None:
    queued, started, *epochs, finished = trained
    last = epochs[-1].epoch

    assert queued.queued.spec == tiny_spec(
        dataset="tiny", optimizer=OPTIMIZER_SGD, weight_decay=0.0, seed=0, **NOTHING_BEYOND
    )
    assert (started.started.train_images, started.started.test_images) == (400, 200)
    assert len(started.started.class_names) == 10
    assert started.started.device
    assert 0 < last.train_loss < epochs[0].epoch.train_loss
    assert (last.test_accuracy * 200) == pytest.approx(round(last.test_accuracy * 200))
    assert last.learning_rate == 0.01
    assert last.seconds > 0
    assert last.images_per_second > 0
    assert last.model == f"models/{finished.job.removeprefix('jobs/')}/epochs/3"
    assert len(last.weights_sha256) == 64
    assert finished.finished.state == JOB_STATE_SUCCEEDED
    assert finished.finished.completed_epochs == 3
    best = max(event.epoch.test_accuracy for event in epochs)
    assert 0.2 < finished.finished.best_test_accuracy == best <= 1


def test_an_unset_spec_is_the_notebooks_protocol(stubs: Stubs) -> None:
    name = submit(stubs, TrainingSpec())

    job = stubs.training.CancelJob(CancelJobRequest(name=name), timeout=10)

    assert job.spec == TrainingSpec(
        dataset="cifar10",
        blocks=2,
        batch_norm=False,
        epochs=51,
        batch_size=128,
        learning_rate=0.01,
        optimizer=OPTIMIZER_SGD,
        momentum=0.0,
        weight_decay=0.0,
        seed=0,
        **NOTHING_BEYOND,
    )


@pytest.mark.parametrize("after", range(7))
def test_a_watcher_who_comes_back_gets_the_rest(
    stubs: Stubs, trained: list[JobEvent], after: int
) -> None:
    request = WatchJobRequest(name=trained[0].job, after_sequence=after)

    assert list(stubs.training.WatchJob(request, timeout=10)) == trained[after:]


def test_two_watchers_of_a_running_job_both_get_every_event_once(stubs: Stubs) -> None:
    seen: list[list[JobEvent]] = [[], []]
    stream = stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=5)), timeout=60)
    seen[0].append(next(iter(stream)))

    def watch() -> None:
        request = WatchJobRequest(name=seen[0][0].job)
        seen[1].extend(stubs.training.WatchJob(request, timeout=60))

    watcher = threading.Thread(target=watch)
    watcher.start()
    seen[0].extend(stream)
    watcher.join()

    # On a busy machine each stream also reports the progress of a slow start, at its own times.
    told, again = ([event for event in events if event.sequence] for events in seen)
    assert told == again
    assert [event.sequence for event in told] == list(range(1, 9))


def test_closing_the_stream_does_not_cancel_the_job(stubs: Stubs) -> None:
    name = submit(stubs, tiny_spec())

    *_, last = stubs.training.WatchJob(WatchJobRequest(name=name), timeout=60)

    assert last.finished.state == JOB_STATE_SUCCEEDED


def test_progress_is_sent_to_those_who_ask_and_has_no_sequence(stubs: Stubs) -> None:
    request = TrainJobRequest(
        spec=tiny_spec(epochs=LONG, blocks=8), progress_interval=Duration(nanos=50_000_000)
    )
    stream = stubs.training.TrainJob(request, timeout=60)

    progress = next(event for event in stream if event.progress.phase == JOB_PHASE_TRAINING)
    stubs.training.CancelJob(CancelJobRequest(name=progress.job), timeout=10)

    assert progress.sequence == 0
    assert progress.progress.total_images == 400
    assert progress.progress.attempts == 1
    durable = [event.sequence for event in stream if event.sequence]
    assert durable == sorted(set(durable))


def test_the_same_request_id_is_the_same_job(stubs: Stubs) -> None:
    request = TrainJobRequest(spec=tiny_spec(), request_id=str(uuid.uuid4()))

    first = list(stubs.training.TrainJob(request, timeout=60))
    request.after_sequence = 3
    second = list(stubs.training.TrainJob(request, timeout=60))

    assert second == first[3:]


def test_a_request_id_with_another_spec_is_refused(stubs: Stubs) -> None:
    request = TrainJobRequest(spec=tiny_spec(epochs=1), request_id=str(uuid.uuid4()))
    first, *_ = stubs.training.TrainJob(request, timeout=60)
    request.spec.epochs = 2

    with pytest.raises(grpc.RpcError) as caught:
        list(stubs.training.TrainJob(request, timeout=60))

    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert reason(caught.value) == "REQUEST_ID_REUSED"
    (resource,) = [
        detail
        for detail in details(caught.value)
        if isinstance(detail, error_details_pb2.ResourceInfo)
    ]
    assert resource.resource_name == first.job


def test_cancelling_a_running_job_ends_it_mid_epoch(stubs: Stubs) -> None:
    stream = stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=LONG)), timeout=60)
    events = [next(iter(stream)) for _ in range(3)]

    cancelled = stubs.training.CancelJob(CancelJobRequest(name=events[0].job), timeout=10)
    again = stubs.training.CancelJob(CancelJobRequest(name=events[0].job), timeout=10)
    events.extend(stream)

    assert cancelled.state == JOB_STATE_CANCELLED
    assert again == cancelled
    assert events[-1].finished.state == JOB_STATE_CANCELLED
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert cancelled.completed_epochs == events[-1].finished.completed_epochs >= 1
    # Its epochs stay usable, and the device is free again.
    assert cancelled.model == f"models/{cancelled.name.removeprefix('jobs/')}"
    list(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(epochs=1)), timeout=60))


def test_a_second_job_waits_its_turn_and_can_be_cancelled_there(stubs: Stubs) -> None:
    running = submit(stubs, tiny_spec(epochs=LONG))
    wait_for(stubs, running, lambda job: job.state == JOB_STATE_RUNNING)
    first, second = (submit(stubs, tiny_spec(epochs=1)) for _ in range(2))

    waiting = stubs.training.GetJob(GetJobRequest(name=second), timeout=10)
    queued = stubs.training.ListJobs(ListJobsRequest(states=[JOB_STATE_QUEUED]), timeout=10)
    stubs.training.CancelJob(CancelJobRequest(name=first), timeout=10)
    stubs.training.CancelJob(CancelJobRequest(name=running), timeout=10)

    assert (waiting.state, waiting.queue_position) == (JOB_STATE_QUEUED, 1)
    assert [job.name for job in queued.jobs] == [second, first]
    wait_for(stubs, second, lambda job: job.state == JOB_STATE_SUCCEEDED)


def test_a_finished_job_cannot_be_cancelled(stubs: Stubs, trained: list[JobEvent]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stubs.training.CancelJob(CancelJobRequest(name=trained[0].job), timeout=10)

    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason(caught.value) == "ILLEGAL_JOB_STATE"


def test_a_diverging_job_fails_and_says_why(stubs: Stubs) -> None:
    spec = tiny_spec(learning_rate=1000.0, batch_norm=False, epochs=5)

    *_, last = stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=60)
    job = stubs.training.GetJob(GetJobRequest(name=last.job), timeout=10)

    assert last.finished.state == job.state == JOB_STATE_FAILED
    assert last.finished.failure.reason == "DIVERGED"
    assert "learning rate" in last.finished.failure.message
    assert job.failure == last.finished.failure


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"dataset": "imagenet"}, "spec.dataset"),
        ({"dataset": "../../etc/passwd"}, "spec.dataset"),
        ({"blocks": 65}, "spec.blocks"),
        ({"blocks": -1}, "spec.blocks"),
        ({"learning_rate": float("nan")}, "spec.learning_rate"),
        ({"learning_rate": float("inf")}, "spec.learning_rate"),
        ({"learning_rate": 0.0}, "spec.learning_rate"),
        ({"batch_size": 0}, "spec.batch_size"),
        ({"epochs": 0}, "spec.epochs"),
        ({"epochs": 10**9}, "spec.epochs"),
        ({"momentum": 1.0}, "spec.momentum"),
        ({"momentum": 0.5, "optimizer": OPTIMIZER_ADAM}, "spec.momentum"),
        ({"weight_decay": -0.1}, "spec.weight_decay"),
        ({"seed": -1}, "spec.seed"),
        ({"optimizer": 77}, "spec.optimizer"),
        ({"initialization": 77}, "spec.initialization"),
        ({"schedule": 77}, "spec.schedule"),
        ({"augmentation": 77}, "spec.augmentation"),
        ({"precision": 77}, "spec.precision"),
        ({"patience": -1}, "spec.patience"),
        ({"momentum": 0.0, "nesterov": True}, "spec.nesterov"),
    ],
)
def test_a_wrong_spec_is_refused_field_by_field(
    stubs: Stubs, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(stubs.training.TrainJob(TrainJobRequest(spec=tiny_spec(**changes)), timeout=10))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert list(violations(caught.value)) == [field]


def test_all_wrong_fields_are_named_at_once(stubs: Stubs) -> None:
    spec = tiny_spec(dataset="imagenet", blocks=65, epochs=0)

    with pytest.raises(grpc.RpcError) as caught:
        list(stubs.training.TrainJob(TrainJobRequest(spec=spec), timeout=10))

    assert set(violations(caught.value)) == {"spec.dataset", "spec.blocks", "spec.epochs"}
    assert reason(caught.value) == "INVALID_TRAINING_SPEC"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (TrainJobRequest(spec=tiny_spec(), request_id="no-uuid"), "request_id"),
        (TrainJobRequest(spec=tiny_spec(), after_sequence=-1), "after_sequence"),
        (TrainJobRequest(spec=tiny_spec(), progress_interval=Duration()), "progress_interval"),
    ],
)
def test_a_wrong_request_makes_no_job(stubs: Stubs, request_: TrainJobRequest, field: str) -> None:
    before = stubs.training.ListJobs(ListJobsRequest(page_size=1), timeout=10).jobs

    with pytest.raises(grpc.RpcError) as caught:
        list(stubs.training.TrainJob(request_, timeout=10))

    assert list(violations(caught.value)) == [field]
    assert stubs.training.ListJobs(ListJobsRequest(page_size=1), timeout=10).jobs == before


@pytest.mark.parametrize("after", [7, 2**31 - 1, -1])
def test_a_sequence_beyond_the_newest_event_is_refused(
    stubs: Stubs, trained: list[JobEvent], after: int
) -> None:
    request = WatchJobRequest(name=trained[0].job, after_sequence=after)

    with pytest.raises(grpc.RpcError) as caught:
        list(stubs.training.WatchJob(request, timeout=10))

    assert list(violations(caught.value)) == ["after_sequence"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("jobs/nosuchjob0", grpc.StatusCode.NOT_FOUND),
        ("", grpc.StatusCode.INVALID_ARGUMENT),
        ("models/abc", grpc.StatusCode.INVALID_ARGUMENT),
        ("jobs/../../etc", grpc.StatusCode.INVALID_ARGUMENT),
        ("jobs/" + "x" * 10_000, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_unknown_and_malformed_job_names_have_different_errors(
    stubs: Stubs, name: str, code: grpc.StatusCode
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: stubs.training.GetJob(GetJobRequest(name=name), timeout=10),
        lambda: stubs.training.CancelJob(CancelJobRequest(name=name), timeout=10),
        lambda: list(stubs.training.WatchJob(WatchJobRequest(name=name), timeout=10)),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is code
        assert len(caught.value.details() or "") < 500


def test_pages_of_jobs_add_up_to_all(stubs: Stubs, trained: list[JobEvent]) -> None:
    del trained
    for _ in range(3):
        submit(stubs, tiny_spec(epochs=1))
    everything = stubs.training.ListJobs(ListJobsRequest(page_size=1_000), timeout=10)
    assert not everything.next_page_token

    names: list[str] = []
    request = ListJobsRequest(page_size=2)
    while True:
        page = stubs.training.ListJobs(request, timeout=10)
        assert len(page.jobs) <= 2
        names += [job.name for job in page.jobs]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break

    assert names == [job.name for job in everything.jobs]


def test_a_page_token_serves_only_the_request_that_it_came_from(stubs: Stubs) -> None:
    for _ in range(2):
        submit(stubs, tiny_spec(epochs=1))
    token = stubs.training.ListJobs(ListJobsRequest(page_size=1), timeout=10).next_page_token

    for request in (
        ListJobsRequest(page_token=token, states=[JOB_STATE_QUEUED]),
        ListJobsRequest(page_token="bm90IGdpdmVu"),
        ListJobsRequest(page_token="%%%"),
        ListJobsRequest(page_token=token[:-4] + "AAAA"),
        ListJobsRequest(page_token="\N{SNOWMAN}"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            stubs.training.ListJobs(request, timeout=10)
        assert list(violations(caught.value)) == ["page_token"]


def test_a_wrong_page_size_or_state_is_refused(stubs: Stubs) -> None:
    for request, field in (
        (ListJobsRequest(page_size=-1), "page_size"),
        (ListJobsRequest(states=[JOB_STATE_QUEUED, 99]), "states[1]"),  # type: ignore[list-item]
    ):
        with pytest.raises(grpc.RpcError) as caught:
            stubs.training.ListJobs(request, timeout=10)
        assert list(violations(caught.value)) == [field]


@pytest.mark.parametrize("method", ["GetJob", "TrainJob"])
def test_bytes_that_are_no_message_are_refused(stubs: Stubs, method: str) -> None:
    name = f"/leadline.v1.TrainingService/{method}"
    raw: Callable[..., Any] = stubs.channel.unary_stream(name)

    with pytest.raises(grpc.RpcError) as caught:
        list(raw(b"\xff\xff\xff", timeout=10))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert list(violations(caught.value)) == ["request"]


def test_errors_cut_long_texts(stubs: Stubs) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(
            stubs.training.TrainJob(
                TrainJobRequest(spec=tiny_spec(dataset="x" * 100_000)), timeout=10
            )
        )

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(violations(caught.value)["spec.dataset"]) < 600
