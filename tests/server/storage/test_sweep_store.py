"""Sweeps in the store: random lives of their jobs, then the rules one by one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from leadline.models.spec import TrainingSpec
from leadline.server.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    NotFoundError,
    ResourceExhaustedError,
)
from leadline.server.jobs.job import (
    Event,
    Failure,
    Paused,
    Queued,
)
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.states import JobState
from leadline.server.storage.database import open_database
from leadline.server.storage.store import Store
from leadline.server.storage.tables import metadata
from leadline.server.sweeps.grid import Grid, SweepAxis
from leadline.server.sweeps.median_stopping import MedianStopping
from leadline.server.sweeps.sweep import (
    Sweep,
    SweepEvent,
    SweepFinished,
    SweepQueued,
    SweepRequest,
    SweepState,
)
from support.reports import STARTED, an_epoch
from support.stores import COUNTS

EPOCHS = 4
PAUSE = Paused(reason="REQUESTED", message="a caller paused it")


def request(
    *axes: tuple[str, tuple[Any, ...]],
    median_stopping: MedianStopping | None = None,
    priority: int = 0,
) -> SweepRequest:
    return SweepRequest(
        grid=Grid(
            spec=TrainingSpec(dataset="tiny", epochs=EPOCHS),
            axes=tuple(SweepAxis(field=field, values=values) for field, values in axes),
        ),
        options=JobOptions(priority=priority),
        median_stopping=median_stopping,
    )


def submit(
    store: Store,
    sweep_request: SweepRequest,
    *,
    sweep_id: str = "s",
    request_id: str | None = None,
    max_queued: int = 1_000,
) -> Sweep:
    points = sweep_request.grid.points()
    sweep, _ = store.sweeps.create(
        sweep_request,
        sweep_id=sweep_id,
        job_ids=[f"{sweep_id}{index}" for index in range(len(points))],
        request_id=request_id,
        max_queued=max_queued,
    )
    return sweep


def events_of(store: Store, sweep_id: str = "s") -> list[SweepEvent]:
    return store.sweeps.events(sweep_id, after=0, limit=10_000)


def train(store: Store, job_id: str, accuracies: list[float], *, finish: bool = True) -> None:
    """Reports epochs with these accuracies, and then the end of the job."""
    attempt = store.attempts.claim(job_id, device="cpu").attempts
    store.attempts.record_started(job_id, attempt, STARTED)
    for number, accuracy in enumerate(accuracies, start=1):
        store.attempts.record_epoch(job_id, attempt, an_epoch(number, accuracy))
    if finish:
        store.attempts.finish(job_id, attempt, JobState.SUCCEEDED)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    engine = open_database(tmp_path / "jobs.db")
    yield Store(engine)
    engine.dispose()


JOBS = st.integers(0, 3)


class SweepLives(RuleBasedStateMachine):
    """The sweep's log has every event of its jobs, once and in order."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.pool.StaticPool)
        metadata.create_all(self.engine)
        self.store = Store(self.engine)
        self.seen: list[SweepEvent] = []

    def teardown(self) -> None:
        self.engine.dispose()

    @initialize(is_stopping=st.booleans())
    def create(self, is_stopping: bool) -> None:
        rule = MedianStopping(grace_epochs=1, min_completed_jobs=1) if is_stopping else None
        submit(self.store, request(("blocks", (1, 2)), ("seed", (0, 1)), median_stopping=rule))

    def attempt(self, call: Any, *arguments: Any, **options: Any) -> None:
        try:
            call(*arguments, **options)
        except FailedPreconditionError:
            before = self.seen
            self.all_events_are_told_once_and_in_order()
            assert self.seen == before, "what was refused has changed something"

    @rule(job=JOBS)
    def claim(self, job: int) -> None:
        self.attempt(self.store.attempts.claim, f"s{job}", device="cpu")

    @rule(job=JOBS, accuracy=st.floats(0, 1))
    def report_epoch(self, job: int, accuracy: float) -> None:
        now = self.store.jobs.get(f"s{job}")
        self.attempt(
            self.store.attempts.record_epoch,
            now.job_id,
            now.attempts,
            an_epoch(now.completed_epochs + 1, accuracy),
        )

    @rule(job=JOBS, state=st.sampled_from([JobState.SUCCEEDED, JobState.FAILED]))
    def finish(self, job: int, state: JobState) -> None:
        failure = Failure(reason="DIVERGED", message="it did")
        failure_or_none = failure if state is JobState.FAILED else None
        self.attempt(self.store.jobs.finish, f"s{job}", state, failure=failure_or_none)

    @rule(job=JOBS)
    def cancel(self, job: int) -> None:
        self.attempt(self.store.jobs.cancel, f"s{job}")

    @rule(job=JOBS)
    def pause(self, job: int) -> None:
        self.attempt(self.store.jobs.pause, f"s{job}", PAUSE)

    @rule(job=JOBS)
    def resume(self, job: int) -> None:
        self.attempt(self.store.jobs.resume, f"s{job}")

    @rule()
    def restart(self) -> None:
        self.store.attempts.recover()

    @rule()
    def cancel_sweep(self) -> None:
        self.attempt(self.store.sweeps.cancel, "s")

    @rule()
    def pause_sweep(self) -> None:
        self.attempt(self.store.sweeps.pause, "s", PAUSE)

    @rule()
    def resume_sweep(self) -> None:
        self.attempt(self.store.sweeps.resume, "s")

    @invariant()
    def all_events_are_told_once_and_in_order(self) -> None:
        events = events_of(self.store)
        assert events[: len(self.seen)] == self.seen, "an event was taken back or changed"
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert isinstance(events[0].body, SweepQueued)
        for job in range(4):
            own = self.store.jobs.events(f"s{job}", after=1, limit=1_000)
            in_sweep = [
                event.body for event in events if getattr(event.body, "job_id", None) == f"s{job}"
            ]
            assert in_sweep == own
        self.seen = events

    @invariant()
    def jobs_are_counted(self) -> None:
        with self.engine.connect() as connection:
            kept = connection.exec_driver_sql("SELECT * FROM job_counts ORDER BY 1, 2").all()
            assert kept == connection.exec_driver_sql(COUNTS).all()

    @invariant()
    def the_sweep_ends_with_its_last_job(self) -> None:
        view = self.store.sweeps.view("s")
        all_final = all(job.state.is_final for job in view.jobs)
        last = self.seen[-1].body
        assert view.sweep.latest_sequence == len(self.seen)
        assert view.sweep.state.is_final == all_final == isinstance(last, SweepFinished)
        assert (view.sweep.end_time is not None) == all_final
        assert sum(view.sweep.counts.by_state.values()) == 4
        if isinstance(last, SweepFinished):
            assert (last.state, last.counts) == (view.sweep.state, view.sweep.counts)
            assert last.table == view.table
        if not all_final:
            assert (view.sweep.state is SweepState.RUNNING) >= any(
                job.state is JobState.RUNNING for job in view.jobs
            )


TestSweepLives = SweepLives.TestCase
TestSweepLives.settings = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def test_a_sweep_is_accepted_with_all_its_jobs_in_the_order_of_the_grid(store: Store) -> None:
    store.jobs.create(TrainingSpec(), JobOptions(), job_id="a", request_id=None, max_queued=9)

    sweep = submit(store, request(("blocks", (2, 4)), ("batch_norm", (False, True))))
    view = store.sweeps.view("s")

    assert (sweep.state, sweep.counts.by_state[JobState.QUEUED]) == (SweepState.QUEUED, 4)
    assert [(job.spec.blocks, job.spec.batch_norm) for job in view.jobs] == [
        *((2, False), (2, True), (4, False), (4, True))
    ]
    assert {job.sweep_id for job in view.jobs} == {"s"}
    assert store.jobs.queue_positions(["s3", "s0"]) == {"s0": 1, "s3": 4}
    assert store.jobs.events("s2", after=0, limit=9)[0].body == Queued(
        spec=view.jobs[2].spec, queue_position=3
    )
    (queued,) = events_of(store)
    assert queued.body == SweepQueued(
        grid=sweep.request.grid,
        jobs=tuple((job.job_id, sweep.request.grid.point_of(job.spec)) for job in view.jobs),
    )


def test_where_the_queue_has_no_room_for_all_there_is_none_of_them(store: Store) -> None:
    store.jobs.create(TrainingSpec(), JobOptions(), job_id="a", request_id=None, max_queued=9)

    with pytest.raises(ResourceExhaustedError) as caught:
        submit(store, request(("seed", (0, 1, 2))), max_queued=3)

    assert caught.value.reason == "JOB_QUEUE_FULL"
    assert store.jobs.ids() == {"a"}
    assert store.sweeps.find() == []
    submit(store, request(("seed", (0, 1))), max_queued=3)


def test_the_same_request_id_is_the_same_sweep(store: Store) -> None:
    sweep_request = request(("seed", (0, 1)))
    first = submit(store, sweep_request, request_id="r")

    assert submit(store, sweep_request, sweep_id="t", request_id="r") == first
    assert len(store.jobs.ids()) == 2
    for other in (request(("seed", (0, 2))), request(("seed", (0, 1)), priority=1)):
        with pytest.raises(AlreadyExistsError) as caught:
            submit(store, other, sweep_id="t", request_id="r")
        assert caught.value.resource_name == "sweeps/s"


def test_a_sweep_goes_on_when_a_job_of_it_is_cancelled(store: Store) -> None:
    submit(store, request(("seed", (0, 1))))

    store.jobs.cancel("s0")
    midway = store.sweeps.get("s").state
    train(store, "s1", [0.3, 0.5, 0.4, 0.4])
    finished = events_of(store)[-1].body

    assert midway is SweepState.RUNNING
    assert isinstance(finished, SweepFinished)
    assert finished.state is SweepState.SUCCEEDED
    assert store.jobs.get("s0").cancellation is not None


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        ([JobState.SUCCEEDED, JobState.SUCCEEDED], SweepState.SUCCEEDED),
        ([JobState.SUCCEEDED, JobState.FAILED], SweepState.FAILED),
        ([JobState.CANCELLED, JobState.FAILED], SweepState.FAILED),
        ([JobState.CANCELLED, JobState.CANCELLED], SweepState.CANCELLED),
    ],
)
def test_how_a_sweep_ends_follows_from_its_jobs(
    store: Store, ends: list[JobState], state: SweepState
) -> None:
    submit(store, request(("seed", (0, 1))))

    for index, end in enumerate(ends):
        store.attempts.claim(f"s{index}", device="cpu")
        failure = Failure(reason="DIVERGED", message="it did") if end is JobState.FAILED else None
        store.jobs.finish(f"s{index}", end, failure=failure)

    assert store.sweeps.get("s").state is state
    assert store.sweeps.count_by_state()[state] == 1


def test_a_cancelled_sweep_is_cancelled_even_where_a_job_had_succeeded(store: Store) -> None:
    submit(store, request(("seed", (0, 1, 2))))
    train(store, "s0", [0.5] * EPOCHS)

    view, changed = store.sweeps.cancel("s")
    again, changed_again = store.sweeps.cancel("s")

    assert (view.sweep.state, changed) == (SweepState.CANCELLED, ["s1", "s2"])
    assert (again, changed_again) == (view, [])
    assert view.jobs[1].cancellation is not None
    assert view.jobs[1].cancellation.message == "a caller cancelled its sweep"
    for move in (store.sweeps.resume, lambda name: store.sweeps.pause(name, PAUSE)):
        with pytest.raises(FailedPreconditionError) as caught:
            move("s")
        assert caught.value.reason == "ILLEGAL_SWEEP_STATE"


def test_a_paused_sweep_is_queued_again_as_a_whole(store: Store) -> None:
    submit(store, request(("seed", (0, 1))))
    train(store, "s0", [0.5], finish=False)

    paused, set_aside = store.sweeps.pause("s", PAUSE)
    resumed, queued = store.sweeps.resume("s")

    assert (paused.sweep.state, set_aside) == (SweepState.PAUSED, ["s0", "s1"])
    assert (resumed.sweep.state, queued) == (SweepState.RUNNING, ["s0", "s1"])
    bodies = [event.body.body for event in events_of(store) if isinstance(event.body, Event)]
    assert [type(body).__name__ for body in bodies[-4:]] == ["Paused", "Paused"] + ["Resumed"] * 2


def test_a_job_goes_with_its_sweep_and_not_before(store: Store) -> None:
    submit(store, request(("seed", (0, 1))))
    store.jobs.cancel("s0")

    with pytest.raises(FailedPreconditionError) as caught:
        store.jobs.delete("s0")
    assert caught.value.reason == "JOB_IN_SWEEP"
    with pytest.raises(FailedPreconditionError) as caught:
        store.sweeps.delete("s")
    assert caught.value.reason == "SWEEP_NOT_FINISHED"
    store.sweeps.cancel("s")
    store.sweeps.delete("s")

    assert store.jobs.ids() == set()
    with pytest.raises(NotFoundError):
        store.sweeps.get("s")
    assert events_of(store) == []


def test_sweeps_and_their_jobs_are_listed(store: Store) -> None:
    store.jobs.create(TrainingSpec(), JobOptions(), job_id="a", request_id=None, max_queued=9)
    for sweep_id in ("s", "t"):
        submit(store, request(("seed", (0, 1))), sweep_id=sweep_id)

    newest, oldest = store.sweeps.find()

    assert (newest.sweep_id, oldest.sweep_id) == ("t", "s")
    assert store.sweeps.find(before=newest.number, limit=5) == [oldest]
    assert [job.job_id for job in store.jobs.find(sweep_id="s")] == ["s1", "s0"]
    turns = [store.jobs.next_queued(in_sweep=kind) for kind in (None, False, True)]
    assert [job and job.job_id for job in turns] == ["a", "a", "s0"]


def test_the_table_has_statistics_over_seeds_and_the_best_depth(store: Store) -> None:
    submit(store, request(("batch_norm", (False, True)), ("blocks", (2, 4)), ("seed", (0, 1))))
    bests = {"s0": 0.5, "s1": 0.6, "s2": 0.1, "s3": 0.1, "s4": 0.4, "s5": 0.4, "s6": 0.7}
    for job_id, best in bests.items():
        train(store, job_id, [0.1, best, 0.1, 0.05])

    table = store.sweeps.view("s").table
    plain, _, _, deep_normed = table.variants

    assert plain.point == {"batch_norm": False, "blocks": 2}
    assert plain.best is not None
    assert plain.last is not None
    assert plain.best.count == 2
    assert plain.best.mean == pytest.approx(0.55)
    assert plain.best.deviation == pytest.approx(0.0707, abs=1e-4)
    assert plain.last.mean == pytest.approx(0.05)
    assert plain.last.deviation == 0.0
    assert (plain.job_ids, plain.finished_jobs, plain.best_job_id) == (("s0", "s1"), 2, "s1")
    assert deep_normed.best is not None
    assert (deep_normed.best.count, deep_normed.finished_jobs) == (1, 1)
    shallow, deep = table.best_depths
    assert (shallow.point, shallow.blocks) == ({"batch_norm": False}, 2)
    assert shallow.runner_up == 4
    assert shallow.margin == pytest.approx(0.45)
    assert shallow.confidence is not None
    assert 0.9 < shallow.confidence < 1.0
    assert (deep.point, deep.blocks, deep.confidence) == ({"batch_norm": True}, 4, None)


def test_a_hopeless_job_is_stopped_by_the_median_rule(store: Store) -> None:
    rule = MedianStopping(grace_epochs=2, min_completed_jobs=2)
    submit(store, request(("seed", (0, 1, 2, 3)), median_stopping=rule))
    train(store, "s0", [0.2, 0.4, 0.6, 0.8])  # means 0.2, 0.3, 0.4, 0.5
    train(store, "s1", [0.4, 0.6, 0.8, 0.8])  # means 0.4, 0.5, 0.6, 0.65
    # The medians are 0.3, 0.4, 0.5, 0.575: the first epoch is in the grace.
    train(store, "s2", [0.1, 0.4], finish=False)
    train(store, "s3", [0.1, 0.39], finish=False)

    going_on, stopped = store.jobs.get("s2"), store.jobs.get("s3")

    assert going_on.state is JobState.RUNNING
    assert stopped.state is JobState.CANCELLED
    assert stopped.completed_epochs == 2
    assert stopped.cancellation is not None
    assert stopped.cancellation.reason == "MEDIAN_STOPPED"
    assert "by epoch 2, 39.00%, is below the median of its sweep's 2 completed jobs, 40.00%" in (
        stopped.cancellation.message
    )
    assert store.sweeps.get("s").counts.median_stopped == 1
    with pytest.raises(FailedPreconditionError):
        store.attempts.record_epoch("s3", stopped.attempts, an_epoch(3, 0.9))


def test_no_job_is_stopped_where_that_was_not_asked_for_or_too_few_are_complete(
    store: Store,
) -> None:
    submit(store, request(("seed", (0, 1, 2))))
    rule = MedianStopping(grace_epochs=1, min_completed_jobs=3)
    submit(store, request(("seed", (0, 1, 2)), median_stopping=rule), sweep_id="t")

    for job_id in ("s0", "s1", "t0", "t1"):
        train(store, job_id, [0.5] * EPOCHS)
    for job_id in ("s2", "t2"):
        train(store, job_id, [0.1] * 3, finish=False)
        assert store.jobs.get(job_id).state is JobState.RUNNING


def test_a_thousand_jobs_are_accepted_and_cancelled_as_one(store: Store) -> None:
    submit(store, request(("seed", tuple(range(1_000)))))
    view, changed = store.sweeps.cancel("s")

    assert len(changed) == 1_000
    assert view.sweep.state is SweepState.CANCELLED
    assert view.sweep.latest_sequence == 1_002
    assert len(events_of(store)) == 1_002
