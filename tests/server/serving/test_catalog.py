import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from leadline.models.spec import TrainingSpec
from leadline.server.errors import NotFoundError, StorageError
from leadline.server.jobs.options import JobOptions
from leadline.server.jobs.variants import VariantFilter
from leadline.server.processes.protocol import SharedRevision
from leadline.server.serving.catalog import ByName, Catalog
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.database import open_for_reading
from leadline.server.storage.store import Store
from leadline.server.thread_pool import ThreadPool
from support.reports import STARTED, an_epoch

SPEC = TrainingSpec(dataset="tiny", blocks=1, epochs=2)
VARIANT = VariantFilter(dataset="tiny", blocks=1, batch_norm=False)


@pytest.fixture
def store(engine: sqlalchemy.Engine) -> Store:
    return Store(engine)


@pytest.fixture
def catalog(store: Store, tmp_path: Path) -> Iterator[Catalog]:
    threads = ThreadPool("store", 1)
    yield Catalog(store=store, threads=threads, artifacts=Artifacts(tmp_path))
    threads.close()


def start(store: Store, job_id: str) -> None:
    store.jobs.create(SPEC, JobOptions(), job_id=job_id, request_id=None, max_queued=10)
    attempt = store.attempts.claim(job_id, device="cpu").attempts
    store.attempts.record_started(job_id, attempt, STARTED)


def complete(store: Store, job_id: str, epoch: int, accuracy: float) -> None:
    store.attempts.record_epoch(job_id, 1, an_epoch(epoch, accuracy))


async def test_what_changes_is_seen_by_the_next_call(store: Store, catalog: Catalog) -> None:
    by_name = ByName(job_id="first")
    with pytest.raises(NotFoundError):
        await catalog.resolve(by_name)

    start(store, "first")
    complete(store, "first", 1, 0.5)
    assert (await catalog.resolve(by_name)).name == "models/first/epochs/1"
    complete(store, "first", 2, 0.75)
    assert (await catalog.resolve(by_name)).name == "models/first/epochs/2"
    assert (await catalog.resolve(VARIANT)).name == "models/first/epochs/2"
    start(store, "second")
    complete(store, "second", 1, 0.9)
    assert (await catalog.resolve(VARIANT)).name == "models/second/epochs/1"
    store.attempts.mark_dropped("first", [1])
    with pytest.raises(NotFoundError, match="retention"):
        await catalog.resolve(ByName(job_id="first", epoch=1))
    store.jobs.cancel("second")
    store.jobs.delete("second")
    assert (await catalog.resolve(VARIANT)).name == "models/first/epochs/2"


async def test_what_has_not_changed_is_not_asked_again(
    engine: sqlalchemy.Engine, store: Store, catalog: Catalog
) -> None:
    start(store, "first")
    complete(store, "first", 1, 0.5)
    known = [await catalog.resolve(selector) for selector in (ByName(job_id="first"), VARIANT)]
    statements: list[str] = []
    sqlalchemy.event.listen(
        engine, "before_cursor_execute", lambda *args: statements.append(args[2])
    )

    again = [await catalog.resolve(selector) for selector in (ByName(job_id="first"), VARIANT)]

    assert [one is other for one, other in zip(again, known, strict=True)] == [True, True]
    assert statements == []


async def test_callers_who_look_for_the_same_model_at_once_share_a_query(
    engine: sqlalchemy.Engine, store: Store, catalog: Catalog
) -> None:
    start(store, "first")
    complete(store, "first", 1, 0.5)
    begun: list[str] = []
    sqlalchemy.event.listen(engine, "begin", lambda _connection: begun.append("a read"))

    resolved = await asyncio.gather(*(catalog.resolve(VARIANT) for _ in range(32)))

    assert len({id(checkpoint) for checkpoint in resolved}) == 1
    assert begun == ["a read"]


async def test_the_catalog_of_another_process_sees_each_write_at_once(
    engine: sqlalchemy.Engine, tmp_path: Path
) -> None:
    shared = SharedRevision.make()
    written = Store(engine, revision=shared.view)
    reader = open_for_reading(tmp_path / "jobs.db")
    # Another mapping of the same memory, as another process has it.
    seen = Store(reader, revision=SharedRevision(shared.file).view)
    threads = ThreadPool("store", 1)
    catalog = Catalog(store=seen, threads=threads, artifacts=Artifacts(tmp_path))
    by_name = ByName(job_id="first")

    start(written, "first")
    with pytest.raises(NotFoundError):
        await catalog.resolve(by_name)
    for epoch in (1, 2):
        complete(written, "first", epoch, epoch / 4)
        assert (await catalog.resolve(by_name)).epoch.epoch == epoch
    assert await catalog.resolve(by_name) is await catalog.resolve(by_name)
    with pytest.raises(StorageError):
        seen.jobs.cancel("first")

    threads.close()
    reader.dispose()
