"""Owners and quotas in the store: exact under races, and without reading whole tables."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import Engine

from leadline.models.spec import TrainingSpec
from leadline.server.access.quotas import Limits, Owner, Quotas, SharedLimits
from leadline.server.errors import FailedPreconditionError, ResourceExhaustedError
from leadline.server.identity import Identity, Role
from leadline.server.jobs.job import Job, Paused
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.states import JobState
from leadline.server.storage.store import Store
from leadline.server.storage.tables import metadata
from leadline.server.sweeps.grid import Grid, SweepAxis
from leadline.server.sweeps.sweep import SweepRequest
from support.reports import STARTED, an_epoch

SPEC = TrainingSpec(dataset="tiny", epochs=4)
PAUSE = Paused(reason="REQUESTED", message="a caller paused it")
QUOTAS = Quotas(
    default=Limits(queued_jobs=3, running_jobs=1), total=SharedLimits(queued_jobs=5, running_jobs=2)
)
NAMES = ("ann", "bob", "cat")


def owner_of(name: str, quotas: Quotas = QUOTAS) -> Owner:
    return quotas.owner(Identity(name, Role.TRAINER))


@pytest.fixture
def store(engine: Engine) -> Store:
    return Store(engine)


def submit(
    store: Store,
    job_id: str,
    owner: str,
    *,
    priority: int = 0,
    request_id: str | None = None,
    quotas: Quotas = QUOTAS,
) -> str:
    job, _ = store.jobs.create(
        SPEC,
        JobOptions(priority=priority),
        job_id=job_id,
        request_id=request_id,
        max_queued=1_000,
        owner=owner_of(owner, quotas),
    )
    return job.job_id


def sweep(store: Store, sweep_id: str, owner: str, jobs: int) -> None:
    grid = Grid(spec=SPEC, axes=(SweepAxis(field="seed", values=tuple(range(jobs))),))
    store.sweeps.create(
        SweepRequest(grid=grid, options=JobOptions()),
        sweep_id=sweep_id,
        job_ids=[f"{sweep_id}{number}" for number in range(jobs)],
        request_id=None,
        max_queued=1_000,
        owner=owner_of(owner),
    )


def test_two_hundred_racing_callers_never_exceed_a_quota(store: Store) -> None:
    quotas = Quotas(default=Limits(queued_jobs=7), total=SharedLimits(queued_jobs=16))
    most = dict.fromkeys(NAMES, 0)

    def race(number: int) -> str:
        name = NAMES[number % 3]
        try:
            submit(store, f"j{number}", name, quotas=quotas)
        except ResourceExhaustedError as error:
            return error.metadata["identity"]
        most[name] = max(most[name], store.jobs.usage(name)["queued_jobs"])
        return "accepted"

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(race, range(200)))

    assert store.jobs.usage(None)["queued_jobs"] == 16
    assert max(most.values()) <= 7
    assert outcomes.count("accepted") == 16
    assert "*" in outcomes


def test_a_sweep_is_refused_as_a_whole(store: Store) -> None:
    submit(store, "a", "ann")

    with pytest.raises(ResourceExhaustedError, match="queued_jobs of ann") as refused:
        sweep(store, "s", "ann", 3)

    assert refused.value.metadata == {
        "quota": "queued_jobs",
        "limit": "3",
        "used": "1",
        "identity": "ann",
    }
    assert store.sweeps.find() == []
    assert store.jobs.ids() == {"a"}


def test_a_paused_job_is_queued_again_only_within_the_quota(store: Store) -> None:
    for job_id in "abc":
        submit(store, job_id, "ann")
    store.jobs.pause("a", PAUSE)
    submit(store, "d", "ann")

    with pytest.raises(ResourceExhaustedError, match="queued_jobs"):
        store.jobs.resume("a", owner_of)

    assert store.jobs.get("a").state is JobState.PAUSED
    store.jobs.cancel("d")
    assert store.jobs.resume("a", owner_of).state is JobState.QUEUED


def test_request_ids_of_other_owners_are_other_ids(store: Store) -> None:
    submit(store, "a", "ann", request_id="r")

    assert submit(store, "b", "bob", request_id="r") == "b"
    assert submit(store, "c", "ann", request_id="r") == "a"
    assert submit(store, "d", "bob", request_id="r") == "b"
    assert store.jobs.get("b").owner == "bob"


def test_nor_does_a_request_id_without_an_owner_lead_to_an_owners_job(store: Store) -> None:
    submit(store, "a", "ann", request_id="r")

    unowned, is_new = store.jobs.create(
        SPEC, JobOptions(), job_id="b", request_id="r", max_queued=9
    )

    assert (unowned.job_id, unowned.owner, is_new) == ("b", "", True)


def test_jobs_sweeps_and_models_are_listed_by_owner(store: Store) -> None:
    submit(store, "a", "ann")
    sweep(store, "s", "bob", 2)
    attempt = store.attempts.claim("a", device="cpu").attempts
    store.attempts.record_started("a", attempt, STARTED)
    store.attempts.record_epoch("a", attempt, an_epoch(1))

    def jobs_of(owner: str, *states: JobState) -> list[str]:
        return [job.job_id for job in store.jobs.find(owner=owner, states=states)]

    assert jobs_of("ann") == ["a"]
    assert jobs_of("bob") == ["s1", "s0"]
    assert jobs_of("bob", JobState.QUEUED, JobState.FAILED) == ["s1", "s0"]
    assert jobs_of("bob", JobState.RUNNING) == []
    assert [job.job_id for job in store.jobs.find(owner="ann", sweep_id="s")] == []
    assert [found.sweep_id for found in store.sweeps.find(owner="bob")] == ["s"]
    assert store.sweeps.find(owner="ann") == []


def test_the_scheduler_skips_owners_that_run_as_many_jobs_as_they_may(store: Store) -> None:
    submit(store, "a", "ann", priority=9)
    submit(store, "b", "ann", priority=8)
    submit(store, "c", "bob")
    chosen = []
    while job := store.jobs.next_allowed(QUOTAS.may_run):
        chosen.append(store.attempts.claim(job.job_id, device="cpu").job_id)

    assert chosen == ["a", "c"]
    store.jobs.cancel("a")
    job = store.jobs.next_allowed(QUOTAS.may_run)
    assert job is not None
    assert job.job_id == "b"


def test_the_scheduler_looks_for_the_kind_of_job_that_it_needs(store: Store) -> None:
    submit(store, "a", "ann")
    sweep(store, "s", "bob", 2)

    found = [store.jobs.next_allowed(QUOTAS.may_run, in_sweep=kind) for kind in (True, False, None)]

    assert [job and job.job_id for job in found] == ["s0", "a", "a"]


def test_the_choice_reads_no_more_the_longer_the_queue(store: Store, engine: Engine) -> None:
    quotas = Quotas(default=Limits(running_jobs=1, queued_jobs=10_000))
    submit(store, "running", "ann", quotas=quotas)
    store.attempts.claim("running", device="cpu")
    submit(store, "bobs", "bob", quotas=quotas)
    steps = []
    for count in (20, 400):
        for number in range(count):
            submit(store, f"{count}-{number}", "ann", priority=9, quotas=quotas)
        counted = count_steps(engine, lambda: store.jobs.next_allowed(quotas.may_run))
        steps.append(counted)

    assert steps[1] <= steps[0] * 1.2 + 20


def count_steps(engine: Engine, choose: Callable[[], Job | None]) -> int:
    """Returns the virtual instructions of SQLite for a choice, which must be bob's job."""
    steps: list[int] = []

    def watch(_connection: Any, cursor: Any, *_: Any) -> None:
        cursor.connection.set_progress_handler(lambda: steps.append(1), 1)

    sqlalchemy.event.listen(engine, "before_cursor_execute", watch)
    chosen = choose()
    sqlalchemy.event.remove(engine, "before_cursor_execute", watch)
    assert chosen is not None
    assert chosen.job_id == "bobs"
    return len(steps)


def test_stored_bytes_are_the_sum_of_an_owners_jobs(store: Store) -> None:
    quotas = Quotas(default=Limits(stored_bytes=100), total=SharedLimits(stored_bytes=150))
    for job_id, name in (("a", "ann"), ("b", "ann"), ("c", "bob")):
        submit(store, job_id, name, quotas=quotas)

    assert store.jobs.record_bytes("a", 60, owner_of("ann", quotas)) == ""
    assert "stored_bytes of ann is 100" in store.jobs.record_bytes("b", 40, owner_of("ann", quotas))
    assert "all callers together" in store.jobs.record_bytes("c", 60, owner_of("bob", quotas))
    with pytest.raises(ResourceExhaustedError, match="delete jobs"):
        submit(store, "d", "ann", quotas=quotas)
    with pytest.raises(ResourceExhaustedError, match="all callers"):
        submit(store, "d", "bob", quotas=quotas)
    store.jobs.cancel("b")
    store.jobs.delete("b")
    assert store.jobs.usage("ann")["stored_bytes"] == 60
    assert submit(store, "d", "ann", quotas=quotas) == "d"
    assert store.jobs.record_bytes("gone", 10) == ""


class QuotaLives(RuleBasedStateMachine):
    """After any order of calls, no quota is exceeded, and the sums are those of the jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.pool.StaticPool)
        metadata.create_all(self.engine)
        self.store = Store(self.engine)
        self.made = 0
        self.sizes: dict[str, tuple[str, int]] = {}

    def teardown(self) -> None:
        self.engine.dispose()

    @rule(name=st.sampled_from(NAMES))
    def submit(self, name: str) -> None:
        usage = [self.store.jobs.usage(one)["queued_jobs"] for one in (name, None)]
        self.made += 1
        try:
            submit(self.store, f"j{self.made}", name)
        except ResourceExhaustedError:
            assert usage[0] == 3 or usage[1] == 5
        else:
            assert usage[0] < 3
            assert usage[1] < 5
            self.sizes[f"j{self.made}"] = (name, 0)

    @rule()
    def start(self) -> None:
        job = self.store.jobs.next_allowed(QUOTAS.may_run)
        if job:
            self.store.attempts.claim(job.job_id, device="cpu")

    @rule(number=st.integers(1, 30), verb=st.sampled_from(["pause", "resume", "cancel", "delete"]))
    def change(self, number: int, verb: str) -> None:
        job_id, jobs = f"j{number}", self.store.jobs
        if job_id not in self.sizes:
            return
        try:
            match verb:
                case "pause":
                    jobs.pause(job_id, PAUSE)
                case "resume":
                    jobs.resume(job_id, owner_of)
                case "cancel":
                    jobs.cancel(job_id)
                case "delete":
                    jobs.delete(job_id)
                    del self.sizes[job_id]
        except (FailedPreconditionError, ResourceExhaustedError):
            pass

    @rule(number=st.integers(1, 30), size=st.integers(0, 1_000))
    def measure(self, number: int, size: int) -> None:
        job_id = f"j{number}"
        self.store.jobs.record_bytes(job_id, size)
        if job_id in self.sizes:
            self.sizes[job_id] = (self.sizes[job_id][0], size)

    @invariant()
    def nothing_is_exceeded(self) -> None:
        for name in (*NAMES, None):
            usage = self.store.jobs.usage(name)
            assert usage["queued_jobs"] <= (5 if name is None else 3)
            assert usage["running_jobs"] <= (2 if name is None else 1)
            sizes = [size for owner, size in self.sizes.values() if name in {None, owner}]
            assert usage["stored_bytes"] == sum(sizes)


TestQuotaLives = QuotaLives.TestCase
TestQuotaLives.settings = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
