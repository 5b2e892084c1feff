"""The store, compared with a model: random lives of jobs, then the rules one by one."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from leadline.models.spec import TrainingSpec
from leadline.server.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    NotFoundError,
    ResourceExhaustedError,
    StorageError,
)
from leadline.server.jobs.job import (
    EpochCompleted,
    Failure,
    Finished,
    Job,
    Paused,
    Queued,
    Resumed,
)
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.states import MOVES, JobState, check_move
from leadline.server.jobs.variants import VariantFilter
from leadline.server.storage.database import open_database
from leadline.server.storage.store import Store
from leadline.server.storage.tables import metadata
from support.reports import STARTED, an_epoch
from support.stores import COUNTS

EPOCHS = 4
SPEC = TrainingSpec(dataset="tiny", epochs=EPOCHS)
PAUSE = Paused(reason="REQUESTED", message="a caller paused it")


def submit(store: Store, job_id: str, *, priority: int = 0) -> Job:
    job, is_new = store.jobs.create(
        SPEC, JobOptions(priority=priority), job_id=job_id, request_id=None, max_queued=1_000
    )
    assert is_new
    return job


def start(store: Store, job_id: str) -> int:
    """Claims a job and reports its start; returns the attempt."""
    job = store.attempts.claim(job_id, device="cpu")
    store.attempts.record_started(job_id, job.attempts, STARTED)
    return job.attempts


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    engine = open_database(tmp_path / "jobs.db")
    yield Store(engine)
    engine.dispose()


class JobLives(RuleBasedStateMachine):
    """After any order of calls, each job is in a state that the table of transitions allows."""

    job_ids = Bundle("job_ids")

    def __init__(self) -> None:
        super().__init__()
        engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.pool.StaticPool)
        metadata.create_all(engine)
        self.engine = engine
        self.store = Store(engine)
        self.states: dict[str, JobState] = {}
        self.epochs: dict[str, int] = {}
        self.attempts: dict[str, int] = {}

    def teardown(self) -> None:
        self.engine.dispose()

    @rule(target=job_ids, priority=st.integers(-2, 2))
    def create(self, priority: int) -> str:
        job_id = f"job{len(self.attempts)}"
        submit(self.store, job_id, priority=priority)
        self.states[job_id] = JobState.QUEUED
        self.epochs[job_id] = self.attempts[job_id] = 0
        return job_id

    def move(self, job_id: str, target: JobState, call: object) -> bool:
        """Makes a call that must succeed if and only if the transition is legal."""
        assert callable(call)
        if job_id not in self.states:
            with pytest.raises(NotFoundError):
                call()
            return False
        if target not in MOVES[self.states[job_id]]:
            with pytest.raises(FailedPreconditionError):
                call()
            return False
        call()
        self.states[job_id] = target
        return True

    @rule(job_id=job_ids)
    def claim(self, job_id: str) -> None:
        if self.move(
            job_id, JobState.RUNNING, lambda: self.store.attempts.claim(job_id, device="cpu")
        ):
            self.attempts[job_id] += 1
            self.store.attempts.record_started(job_id, self.attempts[job_id], STARTED)

    @rule(job_id=job_ids, late=st.integers(0, 2), accuracy=st.floats(0, 1))
    def report_epoch(self, job_id: str, late: int, accuracy: float) -> None:
        """Reports an epoch of the current attempt or of an earlier one."""
        if job_id not in self.states:
            return
        attempt = self.attempts[job_id] - late
        number = self.epochs[job_id] + 1
        holds = self.states[job_id] is JobState.RUNNING and late == 0
        if not holds:
            with pytest.raises(FailedPreconditionError):
                self.store.attempts.record_epoch(job_id, attempt, an_epoch(number, accuracy))
            return
        with pytest.raises(FailedPreconditionError):
            self.store.attempts.record_epoch(job_id, attempt, an_epoch(number + 1, accuracy))
        self.store.attempts.record_epoch(job_id, attempt, an_epoch(number, accuracy))
        self.epochs[job_id] = number

    @rule(job_id=job_ids)
    def succeed(self, job_id: str) -> None:
        self.move(
            job_id, JobState.SUCCEEDED, lambda: self.store.jobs.finish(job_id, JobState.SUCCEEDED)
        )

    @rule(job_id=job_ids)
    def fail(self, job_id: str) -> None:
        failure = Failure(reason="DIVERGED", message="it did")
        self.move(
            job_id,
            JobState.FAILED,
            lambda: self.store.jobs.finish(job_id, JobState.FAILED, failure=failure),
        )

    @rule(job_id=job_ids)
    def cancel(self, job_id: str) -> None:
        if self.states.get(job_id) is JobState.CANCELLED:
            assert self.store.jobs.cancel(job_id).state is JobState.CANCELLED
        else:
            self.move(job_id, JobState.CANCELLED, lambda: self.store.jobs.cancel(job_id))

    @rule(job_id=job_ids)
    def pause(self, job_id: str) -> None:
        if self.states.get(job_id) is JobState.PAUSED:
            assert self.store.jobs.pause(job_id, PAUSE).state is JobState.PAUSED
        else:
            self.move(job_id, JobState.PAUSED, lambda: self.store.jobs.pause(job_id, PAUSE))

    @rule(job_id=job_ids)
    def resume(self, job_id: str) -> None:
        if self.states.get(job_id) in {JobState.QUEUED, JobState.RUNNING}:
            assert self.store.jobs.resume(job_id).state is self.states[job_id]
        else:
            self.move(job_id, JobState.QUEUED, lambda: self.store.jobs.resume(job_id))

    @rule()
    def restart(self) -> None:
        running = [job_id for job_id, state in self.states.items() if state is JobState.RUNNING]
        assert sorted(self.store.attempts.recover()) == sorted(running)
        for job_id in running:
            self.states[job_id] = JobState.QUEUED

    @rule(job_id=job_ids)
    def delete(self, job_id: str) -> None:
        if job_id in self.states and not self.states[job_id].is_final:
            with pytest.raises(FailedPreconditionError):
                self.store.jobs.delete(job_id)
        elif job_id in self.states:
            self.store.jobs.delete(job_id)
            del self.states[job_id]
        else:
            with pytest.raises(NotFoundError):
                self.store.jobs.delete(job_id)

    @invariant()
    def jobs_are_as_the_model_says(self) -> None:
        jobs = {job.job_id: job for job in self.store.jobs.find()}
        assert {job_id: job.state for job_id, job in jobs.items()} == self.states
        for job_id, job in jobs.items():
            assert job.completed_epochs == self.epochs[job_id]
            assert job.attempts == self.attempts[job_id]
            assert (job.failure is not None) is (job.state is JobState.FAILED)
            assert (job.pause is not None) is (job.state is JobState.PAUSED)
            assert (job.end_time is not None) is job.state.is_final

    @invariant()
    def events_have_no_gaps_and_tell_the_same_story(self) -> None:
        for job_id, state in self.states.items():
            logged = self.store.jobs.events(job_id, after=0, limit=10_000)
            assert [event.sequence for event in logged] == list(range(1, len(logged) + 1))
            assert self.store.jobs.get(job_id).latest_sequence == len(logged)
            bodies = [event.body for event in logged]
            assert isinstance(bodies[0], Queued)
            assert isinstance(bodies[-1], Finished) is state.is_final
            epochs = [body.epoch for body in bodies if isinstance(body, EpochCompleted)]
            assert epochs == list(range(1, self.epochs[job_id] + 1))
            steps = [type(body) for body in bodies if isinstance(body, Paused | Resumed)]
            assert steps == [(Paused, Resumed)[index % 2] for index in range(len(steps))]

    @invariant()
    def jobs_are_counted(self) -> None:
        with self.engine.connect() as connection:
            kept = connection.exec_driver_sql("SELECT * FROM job_counts ORDER BY 1, 2").all()
            assert kept == connection.exec_driver_sql(COUNTS).all()

    @invariant()
    def the_queue_is_in_order(self) -> None:
        waiting = self.store.jobs.find(states=[JobState.QUEUED])
        waiting.sort(key=lambda job: (-job.options.priority, job.number))
        following = self.store.jobs.next_queued()
        assert following == (waiting[0] if waiting else None)
        positions = {job.job_id: position for position, job in enumerate(waiting)}
        assert self.store.jobs.queue_positions([*self.attempts]) == positions


JobLives.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
test_any_life_of_jobs = JobLives.TestCase


@pytest.mark.parametrize("current", JobState)
@pytest.mark.parametrize("target", JobState)
def test_only_the_moves_in_the_table_are_legal(current: JobState, target: JobState) -> None:
    if target in MOVES[current]:
        check_move("x", current, target)
        return
    with pytest.raises(FailedPreconditionError, match=f"{current}, which cannot become {target}"):
        check_move("x", current, target)


def test_a_state_is_final_just_where_no_move_leads_out() -> None:
    assert {state for state in JobState if state.is_final} == {
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.CANCELLED,
    }


def test_a_request_id_stands_for_one_spec_with_its_options(store: Store) -> None:
    call = {"request_id": "r", "max_queued": 10}
    job, _ = store.jobs.create(SPEC, JobOptions(), job_id="a", **call)  # type: ignore[arg-type]

    same, is_new = store.jobs.create(SPEC, JobOptions(), job_id="b", **call)  # type: ignore[arg-type]

    assert (same, is_new) == (job, False)
    for spec, options in (
        (replace(SPEC, epochs=9), JobOptions()),
        (SPEC, JobOptions(priority=1)),
    ):
        with pytest.raises(AlreadyExistsError):
            store.jobs.create(spec, options, job_id="c", **call)  # type: ignore[arg-type]


def test_a_new_job_keeps_its_events_when_those_of_a_deleted_one_are_removed(store: Store) -> None:
    submit(store, "a")
    store.jobs.cancel("a")
    store.jobs.delete("a")
    submit(store, "b")

    store.jobs.purge(store.jobs.deleted_ids())

    assert [event.sequence for event in store.jobs.events("b", after=0, limit=9)] == [1]


def test_a_full_queue_refuses_but_still_knows_its_requests(store: Store) -> None:
    store.jobs.create(SPEC, JobOptions(), job_id="a", request_id="r", max_queued=1)

    with pytest.raises(ResourceExhaustedError):
        store.jobs.create(SPEC, JobOptions(), job_id="b", request_id=None, max_queued=1)

    known, is_new = store.jobs.create(SPEC, JobOptions(), job_id="c", request_id="r", max_queued=1)
    assert (known.job_id, is_new) == ("a", False)


def test_an_epoch_made_again_must_have_the_same_weights(store: Store) -> None:
    submit(store, "a")
    store.attempts.record_epoch("a", start(store, "a"), an_epoch(1))
    store.attempts.requeue("a", 1)
    second = start(store, "a")

    assert store.attempts.record_epoch("a", second, an_epoch(1)) is None
    with pytest.raises(FailedPreconditionError, match="weights are not the same"):
        store.attempts.record_epoch("a", second, an_epoch(1, weights="0" * 64))

    assert [epoch.attempt for epoch in store.models.get("a").epochs] == [second]
    assert store.jobs.get("a").latest_sequence == 3


def test_the_earliest_of_equally_good_epochs_is_the_best(store: Store) -> None:
    submit(store, "a")
    attempt = start(store, "a")
    for number, accuracy in enumerate((0.1, 0.4, 0.4, 0.3), start=1):
        store.attempts.record_epoch("a", attempt, an_epoch(number, accuracy))

    assert (store.jobs.get("a").best_epoch, store.jobs.get("a").best_test_accuracy) == (2, 0.4)


def test_a_variant_is_its_best_model_the_newest_of_equals(store: Store) -> None:
    for job_id, accuracy in (("low", 0.2), ("old", 0.6), ("new", 0.6)):
        submit(store, job_id)
        store.attempts.record_epoch(job_id, start(store, job_id), an_epoch(1, accuracy))
        store.jobs.finish(job_id, JobState.SUCCEEDED)

    best = store.models.find_best(VariantFilter(dataset="tiny", blocks=2, batch_norm=False))

    assert best
    assert best.job.job_id == "new"
    assert store.models.find_best(VariantFilter(dataset="tiny", blocks=3)) is None


def test_deadlines_count_from_acceptance(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    store = Store(open_database(tmp_path / "jobs.db"), now=lambda: now)
    options = JobOptions(time_limit=60.0)
    store.jobs.create(SPEC, options, job_id="a", request_id=None, max_queued=9)
    submit(store, "b")

    assert store.jobs.next_deadline() == now + timedelta(seconds=60)
    assert store.jobs.find_overdue(now + timedelta(seconds=59)) == []
    assert [job.job_id for job in store.jobs.find_overdue(now + timedelta(seconds=60))] == ["a"]
    store.jobs.cancel("a")
    assert store.jobs.next_deadline() is None


def test_what_was_committed_is_there_after_a_reopening(tmp_path: Path) -> None:
    def read(store: Store) -> object:
        return store.jobs.get("a"), store.jobs.events("a", after=0, limit=9), store.models.get("a")

    engine = open_database(tmp_path / "jobs.db")
    store = Store(engine)
    submit(store, "a")
    attempt = start(store, "a")
    store.attempts.record_epoch("a", attempt, an_epoch(1))
    before = read(store)
    engine.dispose()

    assert read(Store(open_database(tmp_path / "jobs.db"))) == before


def test_a_locked_database_is_told_and_nothing_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    store = Store(open_database(path, busy_timeout=0.05))
    submit(store, "a")
    other = sqlalchemy.create_engine(f"sqlite:///{path}")

    with other.connect() as connection:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError) as caught:
            store.jobs.cancel("a")
        connection.rollback()
    other.dispose()

    assert caught.value.reason == "STORAGE_LOCKED"
    assert store.jobs.cancel("a").state is JobState.CANCELLED


def test_a_read_only_database_is_told(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "jobs.db")
    store = Store(engine)
    submit(store, "a")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")

    with pytest.raises(StorageError) as caught:
        store.jobs.cancel("a")

    assert caught.value.reason == "STORAGE_READ_ONLY"
    assert store.jobs.get("a").state is JobState.QUEUED
