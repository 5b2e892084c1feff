"""Migrations of databases from earlier versions of Leadline."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import Engine

from leadline.models.spec import TrainingSpec
from leadline.server.jobs.job import Queued
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.states import JobState
from leadline.server.jobs.variants import VariantFilter
from leadline.server.storage.database import open_database
from leadline.server.storage.migrations import SchemaError
from leadline.server.storage.store import Store
from leadline.server.sweeps.grid import Grid, SweepAxis
from leadline.server.sweeps.sweep import SweepQueued, SweepRequest, SweepState
from support.stores import COUNTS

SCHEMAS = (1, 2, 3, 4, 5)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Store]:
    engine = open_database(path)
    try:
        yield Store(engine)
    finally:
        engine.dispose()


def restore(path: Path, schema: int) -> Path:
    """Creates a database from a dump."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript((Path(__file__).parent / f"schema_{schema}.sql").read_text())
    return path


def columns_and_indexes(engine: Engine) -> dict[str, tuple[set[str], set[str]]]:
    inspector = sqlalchemy.inspect(engine)
    return {
        table: (
            {f"{column['name']} {column['type']}" for column in inspector.get_columns(table)},
            {f"{index['name']} {index['column_names']}" for index in inspector.get_indexes(table)},
        )
        for table in inspector.get_table_names()
    }


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_migrated_database_has_the_tables_of_a_new_one(tmp_path: Path, schema: int) -> None:
    migrated = open_database(restore(tmp_path / "old.db", schema))
    new = open_database(tmp_path / "new.db")

    assert columns_and_indexes(migrated) == columns_and_indexes(new)
    migrated.dispose()
    new.dispose()


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_migrated_database_counts_its_jobs_like_a_new_one(tmp_path: Path, schema: int) -> None:
    migrated = open_database(restore(tmp_path / "old.db", schema))
    new = open_database(tmp_path / "new.db")
    triggers = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
    with migrated.connect() as old, new.connect() as fresh:
        kept = old.exec_driver_sql("SELECT * FROM job_counts ORDER BY sweep_id, state").all()
        assert kept == old.exec_driver_sql(COUNTS).all()
        made = [database.exec_driver_sql(triggers).all() for database in (old, fresh)]
    assert made[0] == made[1]
    assert made[0]
    migrated.dispose()
    new.dispose()


def test_jobs_of_the_first_schema_are_kept(tmp_path: Path) -> None:
    path = restore(tmp_path / "jobs.db", 1)
    open_database(path).dispose()

    with opened(path) as store:  # a second time: nothing is left to migrate
        cancelled, queued = store.jobs.get("a"), store.jobs.get("b")
        bodies = [event.body for event in store.jobs.events("a", after=0, limit=9)]

    assert (cancelled.state, cancelled.completed_epochs) == (JobState.CANCELLED, 1)
    assert cancelled.cancellation is not None
    assert cancelled.cancellation.reason == "REQUESTED"
    assert [type(body).__name__ for body in bodies] == [
        *("Queued", "Started", "EpochCompleted", "Finished")
    ]
    assert (queued.state, queued.sweep_id) == (JobState.QUEUED, None)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_migrated_database_takes_sweeps(tmp_path: Path, schema: int) -> None:
    request = SweepRequest(
        grid=Grid(spec=TrainingSpec(), axes=(SweepAxis(field="seed", values=(0, 1)),)),
        options=JobOptions(),
        median_stopping=None,
    )
    with opened(restore(tmp_path / "jobs.db", schema)) as store:
        store.sweeps.create(
            request, sweep_id="new", job_ids=["n0", "n1"], request_id=None, max_queued=9
        )
        view, _ = store.sweeps.cancel("new")

    assert view.sweep.state is SweepState.CANCELLED


@pytest.mark.parametrize("schema", SCHEMAS)
def test_jobs_from_before_were_trained_with_two_convolutions_a_block(
    tmp_path: Path, schema: int
) -> None:
    with opened(restore(tmp_path / "jobs.db", schema)) as store:
        specs = [job.spec for job in store.jobs.find()]
        queued = [
            store.jobs.events(job.job_id, after=0, limit=1)[0].body for job in store.jobs.find()
        ]
        one, two = (
            store.models.find_best(
                VariantFilter(dataset="tiny", blocks=2, block_convolutions=number)
            )
            for number in (1, 2)
        )

    assert {spec.block_convolutions for spec in specs} == {2}
    assert [body.spec for body in queued if isinstance(body, Queued)] == specs
    assert one is None
    assert two is not None


def test_sweeps_from_before_were_of_two_convolutions_a_block(tmp_path: Path) -> None:
    with opened(restore(tmp_path / "jobs.db", 2)) as store:
        view = store.sweeps.view("s")
        first = store.sweeps.events("s", after=0, limit=1)[0].body

    grid = view.sweep.request.grid
    assert grid.spec.block_convolutions == 2
    assert isinstance(first, SweepQueued)
    assert first.grid == grid
    assert [grid.point_of(job.spec) for job in view.jobs] == grid.points()
    assert view.table.best_depths[0].blocks == 2


def test_a_database_of_a_later_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    open_database(path).dispose()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version=7")

    with pytest.raises(SchemaError, match="schema 7"):
        open_database(path)
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (7,)
