"""Large reads: their admission and their end."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Engine

from leadline.server.errors import ResourceExhaustedError
from leadline.server.jobs.job import Job
from leadline.server.services.large_reads import ReadLane, in_slices
from leadline.server.services.models import ModelService
from leadline.server.serving.catalog import Catalog
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.database import Database
from leadline.server.storage.models import ModelName
from leadline.server.storage.shared_reads import SharedReads
from leadline.server.storage.store import Store
from leadline.server.thread_pool import AbandonedError, ThreadPool, check_abandoned
from support.stores import fill

# A read that takes SQLite hours.
_ENDLESS = """
    WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted)
    SELECT count(*) FROM counted WHERE n > 1000000000000
"""


@pytest.fixture
async def lane() -> AsyncIterator[ReadLane]:
    lane = ReadLane("reads", 1, max_waiting=4, max_wait_seconds=30)
    yield lane
    lane.close()


async def until(event: threading.Event) -> None:
    await asyncio.to_thread(event.wait)


async def start(lane: ReadLane, caller: str, log: list[str]) -> "asyncio.Task[None]":
    """Starts a read that records its caller, in its place in the queue."""
    task = asyncio.create_task(lane.run(caller, log.append, caller))
    await asyncio.sleep(0)
    return task


async def test_callers_take_turns(lane: ReadLane) -> None:
    go_on, log = threading.Event(), list[str]()
    first = asyncio.create_task(lane.run("a", go_on.wait))
    await asyncio.sleep(0)
    tasks = [await start(lane, caller, log) for caller in ("a", "a", "a", "b")]

    go_on.set()
    await asyncio.gather(first, *tasks)

    assert log == ["a", "b", "a", "a"]


async def test_no_caller_has_all_threads() -> None:
    lane, go_on, log = ReadLane("reads", 2), threading.Event(), list[str]()
    first = asyncio.create_task(lane.run("a", go_on.wait))
    await asyncio.sleep(0)
    second = await start(lane, "a", log)

    await (await start(lane, "b", log))
    assert log == ["b"]

    go_on.set()
    await asyncio.gather(first, second)
    assert log == ["b", "a"]
    lane.close()


async def test_a_thread_goes_to_the_caller_that_has_none() -> None:
    lane, ends, log = ReadLane("reads", 3), [threading.Event() for _ in range(3)], list[str]()
    running = [
        asyncio.create_task(lane.run(caller, end.wait))
        for caller, end in zip("aac", ends, strict=True)
    ]
    await asyncio.sleep(0)
    tasks = [await start(lane, caller, log) for caller in ("a", "b")]

    ends[0].set()
    await asyncio.wait(tasks)

    assert log == ["b", "a"]
    for end in ends:
        end.set()
    await asyncio.gather(*running)
    lane.close()


async def test_the_caller_with_most_waiting_reads_is_refused_its_newest(lane: ReadLane) -> None:
    go_on, log = threading.Event(), list[str]()
    first = asyncio.create_task(lane.run("a", go_on.wait))
    await asyncio.sleep(0)
    greedy = [await start(lane, "a", log) for _ in range(4)]

    with pytest.raises(ResourceExhaustedError, match="large reads") as refused:
        await (await start(lane, "a", log))
    modest = await start(lane, "b", log)
    go_on.set()
    answers = await asyncio.gather(first, modest, *greedy, return_exceptions=True)

    assert refused.value.retry_after > 0
    assert log == ["a", "b", "a", "a"]
    assert [type(answer) for answer in answers if answer is not None and answer is not True] == [
        ResourceExhaustedError
    ]
    assert lane.waiting == 0


async def test_a_read_that_waits_too_long_is_refused() -> None:
    lane, go_on = ReadLane("reads", 1, max_wait_seconds=0.05), threading.Event()
    first = asyncio.create_task(lane.run("a", go_on.wait))
    await asyncio.sleep(0)

    with pytest.raises(ResourceExhaustedError):
        await lane.run("b", int)

    go_on.set()
    await first
    assert await lane.run("b", int) == 0
    lane.close()


async def test_the_thread_of_a_caller_who_left_is_given_away_only_when_it_is_free(
    lane: ReadLane,
) -> None:
    started, go_on, log = threading.Event(), threading.Event(), list[str]()

    def busy() -> None:
        started.set()
        go_on.wait()
        log.append("the first")

    first = asyncio.create_task(lane.run("a", busy))
    await until(started)
    gone = await start(lane, "a", log)
    second = await start(lane, "b", log)
    for task in (first, gone):
        task.cancel()
    await asyncio.wait({first, gone})

    assert not second.done()
    go_on.set()
    await second
    assert log == ["the first", "b"]


async def test_no_thread_is_lost_when_callers_leave_at_any_moment(lane: ReadLane) -> None:
    for round_ in range(200):
        tasks = [asyncio.create_task(lane.run(f"{number}", int)) for number in range(4)]
        for _ in range(round_ % 5):
            await asyncio.sleep(0)
        for task in tasks[round_ % 4 :: 2]:
            task.cancel()
        await asyncio.wait(tasks)

    async with asyncio.timeout(10):
        assert await lane.run("a", int) == 0
    assert lane.waiting == 0


async def test_sqlite_ends_a_read_whose_caller_has_left(engine: Engine) -> None:
    threads, started, ended = ThreadPool("store", 1), threading.Event(), list[BaseException]()

    def read() -> None:
        try:
            with Database(engine).read() as connection:
                started.set()
                connection.exec_driver_sql(_ENDLESS).all()
        except BaseException as error:
            ended.append(error)
            raise

    caller = asyncio.create_task(threads.run(read))
    await until(started)
    caller.cancel()
    await asyncio.wait({caller})

    async with asyncio.timeout(10):
        assert await threads.run(int) == 0
    assert [type(error) for error in ended] == [AbandonedError]
    with Database(engine).read() as connection:  # the connection is usable again
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    threads.close()


async def test_a_pool_that_closes_ends_its_reads(engine: Engine) -> None:
    threads, started = ThreadPool("store", 1), threading.Event()

    def read() -> None:
        with Database(engine).read() as connection:
            started.set()
            connection.exec_driver_sql(_ENDLESS).all()

    caller = asyncio.create_task(threads.run(read))
    await until(started)
    began = time.monotonic()
    threads.close()

    assert time.monotonic() - began < 10
    with pytest.raises(AbandonedError):
        await caller


async def test_a_write_is_completed_though_its_caller_has_left(engine: Engine) -> None:
    fill(engine, 1)
    threads = ThreadPool("writes", 1)
    started, go_on = threading.Event(), threading.Event()

    def write() -> None:
        with Database(engine).write() as work:
            started.set()
            go_on.wait()
            work.connection.exec_driver_sql("UPDATE jobs SET device = 'written'")

    caller = asyncio.create_task(threads.run(write))
    await until(started)
    caller.cancel()
    await asyncio.wait({caller})
    go_on.set()
    await threads.run(int)

    assert Store(engine).jobs.get("f0").device == "written"
    threads.close()


async def test_a_listing_reads_no_further_than_it_is_used(engine: Engine) -> None:
    fill(engine, 50)
    find = Store(engine).jobs.find
    limits: list[int] = []

    def read(*, before: int | None, limit: int) -> list[int]:
        limits.append(limit)
        return [job.number for job in find(before=before, limit=limit)]

    numbers = in_slices(read, int, before=None, size=10)

    assert [next(numbers) for _ in range(11)] == list(range(50, 39, -1))
    assert limits == [10, 10]
    assert list(numbers) == list(range(39, 0, -1))


async def test_a_listing_ends_between_two_entries_when_its_caller_leaves() -> None:
    threads, used = ThreadPool("reads", 1), list[int]()
    third, go_on = threading.Event(), threading.Event()

    def use() -> None:
        for number in in_slices(
            lambda before, limit: range((before or 100) - 1, 0, -1)[:limit],
            int,
            before=None,
            size=10,
        ):
            used.append(number)
            if len(used) == 3:
                third.set()
                go_on.wait()

    caller = asyncio.create_task(threads.run(use))
    await until(third)
    caller.cancel()
    await asyncio.wait({caller})
    go_on.set()
    await threads.run(check_abandoned)

    assert len(used) == 3
    threads.close()


async def test_readers_at_once_share_a_read_and_the_last_to_leave_ends_it(engine: Engine) -> None:
    shared, reads = SharedReads(Store(engine), size=2), list[str]()

    async def read() -> str:
        reads.append("begun")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            reads.append("ended")
            raise
        return ""

    readers = [asyncio.create_task(shared.get("key", read)) for _ in range(3)]
    await asyncio.sleep(0.01)
    for left, reader in enumerate(readers):
        assert reads == ["begun"], left
        reader.cancel()
        await asyncio.wait({reader})
    await asyncio.sleep(0.01)

    assert reads == ["begun", "ended"]


async def test_a_shared_read_is_made_again_after_a_write_or_a_failure(engine: Engine) -> None:
    fill(engine, 2)
    store = Store(engine)
    shared, reads = SharedReads(store, size=2), list[int]()

    async def read() -> int:
        reads.append(len(reads))
        if len(reads) == 1:
            raise ValueError("the first fails")
        return len(reads)

    with pytest.raises(ValueError, match="the first"):
        await shared.get("key", read)
    assert [await shared.get("key", read) for _ in range(3)] == [2, 2, 2]
    store.jobs.delete("f0")
    assert await shared.get("key", read) == 3


async def test_callers_who_ask_for_all_names_at_once_share_the_read(
    engine: Engine, tmp_path: Path
) -> None:
    fill(engine, 9)
    store, threads, lane = Store(engine), ThreadPool("store", 1), ReadLane("reads", 2)
    catalog = Catalog(store=store, threads=threads, artifacts=Artifacts(tmp_path))
    models = ModelService(store=store, threads=threads, large_reads=lane, catalog=catalog)
    made: list[int] = []

    def use(names: Sequence[ModelName], best: Sequence[Job]) -> int:
        made.append(len(best))
        return len(names)

    async def ask(caller: int) -> int:
        return await models.list_names(use, limit=5, caller=f"{caller}")

    answers = await asyncio.gather(*(ask(caller) for caller in range(40)))
    store.jobs.delete("f0")
    answers.append(await ask(0))

    assert answers == [5] * 41
    assert made == [4, 4]  # variants; read again after the write
    lane.close()
    threads.close()
