import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from leadline.server.jobs.feed import Change, JobFeed
from leadline.server.jobs.job import Event, Paused, Progress


def an_event(sequence: int) -> Event:
    body = Paused(reason="REQUESTED", message="")
    return Event(job_id="a", sequence=sequence, create_time=datetime.now(UTC), body=body)


async def test_everyone_who_waits_is_told_however_many() -> None:
    change = Change()
    waiting = [asyncio.create_task(change.wait(60)) for _ in range(1_000)]
    await asyncio.sleep(0)

    change.set()

    assert await asyncio.gather(*waiting) == [True] * 1_000
    assert await change.wait(60)


async def test_other_work_gets_its_turn_while_many_are_told() -> None:
    change = Change()
    told = 0

    async def wait() -> None:
        nonlocal told
        await change.wait(60)
        told += 1

    waiting = [asyncio.create_task(wait()) for _ in range(1_000)]
    await asyncio.sleep(0)
    change.set()
    for _ in range(5):  # what a health check needs
        await asyncio.sleep(0)

    assert 0 < told < 1_000
    await asyncio.gather(*waiting)


async def test_who_gives_up_or_is_cancelled_leaves_nothing_behind() -> None:
    change = Change()

    assert not await change.wait(0.001)
    task = asyncio.create_task(change.wait(60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not change._waiters


async def test_news_after_the_asking_is_not_missed() -> None:
    feed = JobFeed()
    change = feed.change("a")

    feed.notify("a")

    assert await change.wait(60)
    assert not feed.change("a").is_set


async def test_a_closed_feed_lets_no_one_wait() -> None:
    feed = JobFeed()
    before = feed.change("a")

    feed.close()

    assert await before.wait(60)
    assert await feed.change("b").wait(60)
    assert feed.is_closed


async def test_the_latest_events_are_at_hand_without_gaps() -> None:
    feed = JobFeed()
    for sequence in (3, 4, 6, 7):
        feed.publish(an_event(sequence))

    def sequences(after: int) -> list[int] | None:
        events = feed.latest("a", after=after)
        return None if events is None else [event.sequence for event in events]

    assert sequences(5) == [6, 7]
    assert sequences(6) == [7]
    for only_the_store_knows in (0, 3, 4, 7):
        assert sequences(only_the_store_knows) is None


async def test_a_job_without_a_worker_is_forgotten() -> None:
    feed = JobFeed()
    feed.publish(an_event(1))
    feed.set_progress("a", Progress(phase="training"))
    change = feed.change("a")

    feed.forget("a")

    assert change.is_set
    assert feed.progress("a") is None
    assert feed.latest("a", after=0) is None


async def test_who_waits_for_any_job_is_told_of_each() -> None:
    feed = JobFeed()
    news: list[Callable[[], None]] = [
        lambda: feed.notify("a"),
        lambda: feed.publish(an_event(1), "sweep"),
        lambda: feed.forget("b"),
        feed.close,
    ]
    for tell in news:
        change = feed.any_change()
        assert not change.is_set

        tell()

        assert await change.wait(60)
