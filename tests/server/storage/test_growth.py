"""The cost of reads does not grow with the number of jobs."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Engine

from leadline.server.jobs.states import JobState
from leadline.server.jobs.variants import VariantFilter
from leadline.server.storage.database import open_database
from leadline.server.storage.store import Store
from support.stores import fill

FEW, MANY = 100, 3_000

VARIANT = VariantFilter(
    dataset="tiny", blocks=2, block_convolutions=1, batch_norm=False, residual=False
)

Read = Callable[[Store], Any]

READS: dict[str, Read] = {
    "a page of jobs": lambda store: store.jobs.find(limit=51),
    "a page of jobs in a state": lambda store: store.jobs.find(
        states=[JobState.SUCCEEDED], limit=51
    ),
    "a page of jobs in a rare state": lambda store: store.jobs.find(
        states=[JobState.FAILED], limit=51
    ),
    "a page of jobs in several states": lambda store: store.jobs.find(
        states=[JobState.SUCCEEDED, JobState.FAILED, JobState.RUNNING], before=90, limit=51
    ),
    "the running jobs of a sweep": lambda store: store.jobs.find(
        states=[JobState.RUNNING], sweep_id="l"
    ),
    "the queue": lambda store: store.jobs.find_queued(limit=100),
    "the next job": lambda store: store.jobs.next_queued(in_sweep=False),
    "positions in the queue": lambda store: store.jobs.queue_positions(["f1", "q1", "q2"]),
    "overdue jobs": lambda store: store.jobs.find_overdue(datetime.now(UTC)),
    "the next deadline": lambda store: store.jobs.next_deadline(),
    "a page of models": lambda store: store.models.find(VariantFilter(), limit=11),
    "a page of models of a dataset": lambda store: store.models.find(
        VariantFilter(dataset="tiny"), limit=11
    ),
    "models of a dataset without any": lambda store: store.models.find(
        VariantFilter(dataset="none"), limit=11
    ),
    "a page of models of a depth": lambda store: store.models.find(
        VariantFilter(blocks=2, batch_norm=False), limit=11
    ),
    "models of a depth without any": lambda store: store.models.find(
        VariantFilter(blocks=64), limit=11
    ),
    "the best model of a variant": lambda store: store.models.find_best(VARIANT),
    "the most accurate models": lambda store: store.models.find_most_accurate_jobs(limit=11),
    "a page of sweeps": lambda store: store.sweeps.find(limit=11),
    "how many jobs are in each state": lambda store: store.jobs.count_by_state(),
    "how many sweeps are in each state": lambda store: store.sweeps.count_by_state(),
}


class Meter:
    """Counts the queries of an engine, and the virtual instructions of SQLite for them."""

    def __init__(self, engine: Engine) -> None:
        self.queries: list[tuple[str, Any]] = []
        self._engine = engine
        sqlalchemy.event.listen(engine, "before_cursor_execute", self._record)

    def _record(
        self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> None:
        if statement.startswith("SELECT"):
            self.queries.append((statement, parameters))

    def work(self, read: Read) -> tuple[int, int]:
        """Returns the number of queries and instructions of a read."""
        self.queries.clear()
        read(Store(self._engine))
        queries = list(self.queries)
        with self._engine.connect() as connection:
            database: Any = connection.connection.driver_connection
            return len(queries), sum(_instructions(database, *query) for query in queries)


def _instructions(database: Any, statement: str, parameters: Any) -> int:
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    database.set_progress_handler(count, 10)
    try:
        database.execute(statement, parameters).fetchall()
    finally:
        database.set_progress_handler(None, 0)
    return steps * 10


@pytest.fixture(scope="module")
def meters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Meter, Meter]]:
    engines = []
    for count in (FEW, MANY):
        engine = open_database(tmp_path_factory.mktemp("growth") / "jobs.db")
        fill(engine, count)
        fill(engine, 5, state=JobState.QUEUED, prefix="q")
        fill(engine, count // 20, sweep_id="l", prefix="l")
        fill(engine, 5, sweep_id="s", prefix="s")
        engines.append(engine)
    yield Meter(engines[0]), Meter(engines[1])
    for engine in engines:
        engine.dispose()


@pytest.mark.parametrize("name", READS)
def test_a_read_takes_the_same_work_however_many_jobs_there_are(
    meters: tuple[Meter, Meter], name: str
) -> None:
    few, many = (meter.work(READS[name]) for meter in meters)

    assert many[0] == few[0] <= 20
    # A search in a larger index needs a few more steps.
    assert many[1] <= few[1] * 1.2 + 200, (few, many)


def test_the_best_of_each_variant_are_read_and_no_other_job(meters: tuple[Meter, Meter]) -> None:
    def read(store: Store) -> None:
        best = store.models.find_best_of_variants("tiny")
        assert [job.spec.blocks for job in best] == [4, 3, 2, 1]

    few, many = (meter.work(read) for meter in meters)

    assert many[0] == few[0]
    assert many[1] <= few[1] * 1.2 + 200


def test_names_of_models_take_one_query(meters: tuple[Meter, Meter]) -> None:
    names = [Store(meters[1]._engine).models.find_names(limit=limit) for limit in (3, MANY)]

    assert [name.job_id for name in names[0]] == ["s4", "s3", "s2"]
    assert len(names[1]) == MANY
    assert meters[1].work(lambda store: store.models.find_names(limit=50))[0] == 1


def test_a_deleted_sweep_takes_no_look_at_the_events_of_other_sweeps(tmp_path: Path) -> None:
    steps = []
    for others in (FEW, MANY):
        engine = open_database(tmp_path / f"{others}.db")
        fill(engine, others, sweep_id="o", prefix="o")
        fill(engine, 20, sweep_id="s", prefix="s")
        count = 0

        def look() -> bool:
            nonlocal count
            count += 1
            return False

        with engine.connect() as connection:
            database: Any = connection.connection.driver_connection
            database.set_progress_handler(look, 100)
        store = Store(engine)
        deleted = store.sweeps.delete("s")
        store.jobs.purge(deleted)
        engine.dispose()
        assert len(deleted) == 20
        steps.append(count)

    assert steps[1] <= steps[0] * 1.3 + 2, steps
