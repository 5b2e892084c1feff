"""The messages that pages receive: the broadcast with a real store, without HTTP."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from leadline.models.spec import TrainingSpec
from leadline.server.errors import UnavailableError
from leadline.server.jobs.job import Progress
from leadline.server.jobs.options import JobOptions
from leadline.server.live import broadcast
from leadline.server.live.broadcast import MAX_WATCHERS, Broadcast, Message, Watcher
from leadline.server.live.overview import Overview
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.services.activity import NEWEST_JOBS, ActivityService
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
def activity(store: Store, notifier: JobNotifier) -> Iterator[ActivityService]:
    threads = ThreadPool("page", 1)
    yield ActivityService(store=store, threads=threads, notifier=notifier)
    threads.close()


@pytest.fixture
def live(activity: ActivityService, notifier: JobNotifier) -> Broadcast:
    return Broadcast(activity=activity, notifier=notifier, quiet_seconds=60)


def page(host: str = "127.0.0.1", disconnect: Callable[[], None] = lambda: None) -> Watcher:
    return Watcher(host=host, disconnect=disconnect)


def submit(store: Store, job_id: str) -> None:
    spec = TrainingSpec(dataset="tiny", epochs=4)
    store.jobs.create(spec, JobOptions(), job_id=job_id, request_id=None, max_queued=1_000)


async def next_of(watching: AsyncGenerator[Message, None], kind: str) -> Any:
    async with asyncio.timeout(20):
        while (message := await anext(watching)).kind != kind:
            pass
    return json.loads(message.data)


async def test_pages_receive_what_changes_and_nothing_else(
    live: Broadcast, store: Store, notifier: JobNotifier
) -> None:
    submit(store, "a")
    async with aclosing(live.watch(None, page())) as watching:
        snapshot = await next_of(watching, "snapshot")
        submit(store, "b")
        notifier.notify("b")
        notification = await next_of(watching, "change")

    assert [card["id"] for card in snapshot["jobs"]] == ["a"]
    assert set(notification) == {"jobs", "order", "queue", "counts", "curves"}
    assert [card["id"] for card in notification["jobs"]] == ["b"]
    assert notification["order"] == ["b", "a"]
    assert notification["queue"] == ["a", "b"]


async def test_progress_within_an_epoch_is_sent_without_reading_the_store(
    live: Broadcast, store: Store, notifier: JobNotifier
) -> None:
    submit(store, "a")
    store.attempts.claim("a", device="cpu")
    async with aclosing(live.watch(None, page())) as watching:
        await next_of(watching, "snapshot")
        notifier.set_progress(
            "a", Progress(phase="training", epoch=1, completed_images=5, total_images=10)
        )
        progress = await next_of(watching, "progress")

    assert (progress["a"]["images"], progress["a"]["of"]) == (5, 10)


async def test_a_page_that_falls_behind_receives_a_full_snapshot(live: Broadcast) -> None:
    async with aclosing(live.watch(None, page())) as watching:
        await next_of(watching, "snapshot")
        for number in range(broadcast._KEPT_MESSAGES):
            live._publish("progress", {"number": number})
        assert (await next_of(watching, "progress"))["number"] == 0
        for number in range(broadcast._KEPT_MESSAGES):
            live._publish("progress", {"number": number})

        assert (await anext(watching)).kind == "snapshot"


async def test_errors_of_the_store_are_sent_and_it_is_read_again(
    live: Broadcast, store: Store, notifier: JobNotifier, tmp_path: Path
) -> None:
    other = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'jobs.db'}")
    async with aclosing(live.watch(None, page())) as watching:
        await next_of(watching, "snapshot")
        with other.connect() as connection:
            # Another program drops the tables, with the effect of a damaged disk.
            connection.exec_driver_sql("ALTER TABLE jobs RENAME TO gone")
            connection.commit()
            notifier.notify("a")
            error = await next_of(watching, "store_error")
            connection.exec_driver_sql("ALTER TABLE gone RENAME TO jobs")
            connection.commit()
        recovered = await next_of(watching, "store_error")
        submit(store, "b")
        notifier.notify("b")
        notification = await next_of(watching, "change")
    other.dispose()

    assert "the job database failed" in error["message"]
    assert recovered["message"] == ""
    assert notification["order"] == ["b"]


async def test_no_snapshot_is_sent_before_the_store_can_be_read(
    live: Broadcast, store: Store, tmp_path: Path
) -> None:
    submit(store, "a")
    other = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'jobs.db'}")
    with other.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs RENAME TO gone")
        connection.commit()
        async with aclosing(live.watch(None, page())) as watching:
            first = await anext(watching)
            connection.exec_driver_sql("ALTER TABLE gone RENAME TO jobs")
            connection.commit()
            snapshot = await next_of(watching, "snapshot")
    other.dispose()

    assert (first.kind, first.id) == ("store_error", None)
    assert "the job database failed" in first.data
    assert snapshot["order"] == ["a"]


async def test_streams_end_when_the_server_shuts_down(
    live: Broadcast, notifier: JobNotifier
) -> None:
    async with (
        aclosing(live.watch(None, page())) as one,
        aclosing(live.watch(None, page())) as other,
    ):
        await next_of(one, "snapshot")
        await next_of(other, "snapshot")

        notifier.close()

        async with asyncio.timeout(10):
            assert [message async for message in one] == []
            assert [message async for message in other] == []
    with pytest.raises(UnavailableError, match="reconnect after its restart"):
        await anext(live.watch(None, page()))


async def test_nothing_is_read_while_nobody_watches(live: Broadcast, notifier: JobNotifier) -> None:
    async with aclosing(live.watch(None, page())) as watching:
        await next_of(watching, "snapshot")
        task = live._task
    assert task is not None

    await asyncio.wait([task], timeout=10)

    assert task.cancelled()
    assert not notifier.any_notification()._waiters


async def test_the_overview_has_every_running_or_waiting_job_however_old(
    store: Store, activity: ActivityService
) -> None:
    for number in range(NEWEST_JOBS + 5):
        submit(store, f"j{number}")
    store.attempts.claim("j0", device="cpu")
    for number in range(3, NEWEST_JOBS + 5):
        store.jobs.cancel(f"j{number}")

    overview = Overview(await activity.read())

    assert list(overview.activity.queue) == ["j1", "j2"]
    assert [job.job_id for job in overview.running] == ["j0"]
    assert list(overview.cards)[-3:] == ["j2", "j1", "j0"]
    assert overview.to_dict()["counts"]["cancelled"] == NEWEST_JOBS + 2


async def test_one_more_page_takes_the_place_of_the_oldest_of_the_host_with_most(
    live: Broadcast,
) -> None:
    hosts = ["few"] * 4 + ["many"] * (MAX_WATCHERS - 4)
    gone: list[int] = []
    async with AsyncExitStack() as stack:
        for number, host in enumerate([*hosts, "new", "new"]):
            watching = live.watch(None, page(host, partial(gone.append, number)))
            await stack.enter_async_context(aclosing(watching))
            await anext(watching)
    assert gone == [4, 5]
