"""What pages are told, and when: the broadcast over a real store, without HTTP."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from leadline.models.spec import TrainingSpec
from leadline.server.errors import UnavailableError
from leadline.server.jobs.job import Progress
from leadline.server.jobs.options import JobOptions
from leadline.server.live import broadcast
from leadline.server.live.broadcast import Broadcast, Message
from leadline.server.live.overview import NEWEST_JOBS, read_overview
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.storage.database import open_database
from leadline.server.storage.store import Store
from leadline.server.thread_pool import ThreadPool


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(open_database(tmp_path / "jobs.db", busy_timeout=0.05))


@pytest.fixture
def notifier() -> JobNotifier:
    return JobNotifier()


@pytest.fixture
def told(store: Store, notifier: JobNotifier) -> Iterator[Broadcast]:
    threads = ThreadPool("page", 1)
    yield Broadcast(store=store, threads=threads, notifier=notifier, quiet_seconds=60)
    threads.close()


def submit(store: Store, job_id: str) -> None:
    spec = TrainingSpec(dataset="tiny", epochs=4)
    store.jobs.create(spec, JobOptions(), job_id=job_id, request_id=None, max_queued=1_000)


async def next_of(watching: AsyncGenerator[Message, None], kind: str) -> Any:
    async with asyncio.timeout(20):
        while (message := await anext(watching)).kind != kind:
            pass
    return json.loads(message.data)


async def test_what_changes_is_told_and_nothing_else(
    told: Broadcast, store: Store, notifier: JobNotifier
) -> None:
    submit(store, "a")
    async with aclosing(told.watch(None)) as watching:
        whole = await next_of(watching, "snapshot")
        submit(store, "b")
        notifier.notify("b")
        notification = await next_of(watching, "change")

    assert [card["id"] for card in whole["jobs"]] == ["a"]
    assert set(notification) == {"jobs", "order", "queue", "counts", "curves"}
    assert [card["id"] for card in notification["jobs"]] == ["b"]
    assert notification["order"] == ["b", "a"]
    assert notification["queue"] == ["a", "b"]


async def test_progress_within_an_epoch_is_told_without_asking_the_store(
    told: Broadcast, store: Store, notifier: JobNotifier
) -> None:
    submit(store, "a")
    store.attempts.claim("a", device="cpu")
    async with aclosing(told.watch(None)) as watching:
        await next_of(watching, "snapshot")
        notifier.set_progress(
            "a", Progress(phase="training", epoch=1, completed_images=5, total_images=10)
        )
        progress = await next_of(watching, "progress")

    assert (progress["a"]["images"], progress["a"]["of"]) == (5, 10)


async def test_who_falls_behind_is_told_the_whole_anew(told: Broadcast) -> None:
    async with aclosing(told.watch(None)) as watching:
        await next_of(watching, "snapshot")
        for number in range(broadcast._AT_HAND):
            told._tell("progress", {"number": number})
        assert (await next_of(watching, "progress"))["number"] == 0
        for number in range(broadcast._AT_HAND):
            told._tell("progress", {"number": number})

        assert (await anext(watching)).kind == "snapshot"


async def test_a_store_that_fails_is_told_of_and_asked_again(
    told: Broadcast, store: Store, notifier: JobNotifier, tmp_path: Path
) -> None:
    other = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'jobs.db'}")
    async with aclosing(told.watch(None)) as watching:
        await next_of(watching, "snapshot")
        with other.connect() as connection:
            # Another program takes the tables away, as a damaged disk would.
            connection.exec_driver_sql("ALTER TABLE jobs RENAME TO gone")
            connection.commit()
            notifier.notify("a")
            trouble = await next_of(watching, "trouble")
            connection.exec_driver_sql("ALTER TABLE gone RENAME TO jobs")
            connection.commit()
        recovered = await next_of(watching, "trouble")
        submit(store, "b")
        notifier.notify("b")
        notification = await next_of(watching, "change")
    other.dispose()

    assert "the job database failed" in trouble["message"]
    assert recovered["message"] == ""
    assert notification["order"] == ["b"]


async def test_nothing_is_said_of_jobs_before_they_can_be_read(
    told: Broadcast, store: Store, tmp_path: Path
) -> None:
    submit(store, "a")
    other = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'jobs.db'}")
    with other.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs RENAME TO gone")
        connection.commit()
        async with aclosing(told.watch(None)) as watching:
            first = await anext(watching)
            connection.exec_driver_sql("ALTER TABLE gone RENAME TO jobs")
            connection.commit()
            whole = await next_of(watching, "snapshot")
    other.dispose()

    assert (first.kind, first.id) == ("trouble", None)
    assert "the job database failed" in first.data
    assert whole["order"] == ["a"]


async def test_everyone_leaves_when_the_server_shuts_down(
    told: Broadcast, notifier: JobNotifier
) -> None:
    async with aclosing(told.watch(None)) as one, aclosing(told.watch(None)) as other:
        await next_of(one, "snapshot")
        await next_of(other, "snapshot")

        notifier.close()

        async with asyncio.timeout(10):
            assert [message async for message in one] == []
            assert [message async for message in other] == []
    with pytest.raises(UnavailableError, match="come again after its restart"):
        await anext(told.watch(None))


async def test_nothing_is_read_while_nobody_watches(told: Broadcast, notifier: JobNotifier) -> None:
    async with aclosing(told.watch(None)) as watching:
        await next_of(watching, "snapshot")
        task = told._task
    assert task is not None

    await asyncio.wait([task], timeout=10)

    assert task.cancelled()
    assert not notifier.any_notification()._waiters


def test_the_overview_has_every_job_that_runs_or_waits_however_old(store: Store) -> None:
    for number in range(NEWEST_JOBS + 5):
        submit(store, f"j{number}")
    store.attempts.claim("j0", device="cpu")
    for number in range(3, NEWEST_JOBS + 5):
        store.jobs.cancel(f"j{number}")

    overview = read_overview(store)

    assert list(overview.queue) == ["j1", "j2"]
    assert [job.job_id for job in overview.running] == ["j0"]
    assert list(overview.cards)[-3:] == ["j2", "j1", "j0"]
    assert overview.counts["cancelled"] == NEWEST_JOBS + 2
