import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from leadline.server.jobs.job import Event, Hold, Paused, Progress
from leadline.server.scheduling.notifier import JobNotifier, Notification


def an_event(sequence: int) -> Event:
    body = Paused(reason="REQUESTED", message="")
    return Event(job_id="a", sequence=sequence, create_time=datetime.now(UTC), body=body)


async def test_everyone_who_waits_is_told_however_many() -> None:
    notification = Notification()
    waiting = [asyncio.create_task(notification.wait(60)) for _ in range(1_000)]
    await asyncio.sleep(0)

    notification.set()

    assert await asyncio.gather(*waiting) == [True] * 1_000
    assert await notification.wait(60)


async def test_other_work_gets_its_turn_while_many_are_told() -> None:
    notification = Notification()
    woken = 0

    async def wait() -> None:
        nonlocal woken
        await notification.wait(60)
        woken += 1

    waiting = [asyncio.create_task(wait()) for _ in range(1_000)]
    await asyncio.sleep(0)
    notification.set()
    for _ in range(5):  # what a health check needs
        await asyncio.sleep(0)

    assert 0 < woken < 1_000
    await asyncio.gather(*waiting)


async def test_who_gives_up_or_is_cancelled_leaves_nothing_behind() -> None:
    notification = Notification()

    assert not await notification.wait(0.001)
    task = asyncio.create_task(notification.wait(60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not notification._waiters


async def test_news_after_the_asking_is_not_missed() -> None:
    notifier = JobNotifier()
    notification = notifier.notification("a")

    notifier.notify("a")

    assert await notification.wait(60)
    assert not notifier.notification("a").is_set


async def test_a_closed_feed_lets_no_one_wait() -> None:
    notifier = JobNotifier()
    before = notifier.notification("a")

    notifier.close()

    assert await before.wait(60)
    assert await notifier.notification("b").wait(60)
    assert notifier.is_closed


async def test_the_latest_events_are_at_hand_without_gaps() -> None:
    notifier = JobNotifier()
    for sequence in (3, 4, 6, 7):
        notifier.publish(an_event(sequence))

    def sequences(after: int) -> list[int] | None:
        events = notifier.latest("a", after=after)
        return None if events is None else [event.sequence for event in events]

    assert sequences(5) == [6, 7]
    assert sequences(6) == [7]
    for only_the_store_knows in (0, 3, 4, 7):
        assert sequences(only_the_store_knows) is None


async def test_a_job_without_a_worker_is_forgotten() -> None:
    notifier = JobNotifier()
    notifier.publish(an_event(1))
    notifier.set_progress("a", Progress(phase="training"))
    notification = notifier.notification("a")

    notifier.forget("a")

    assert notification.is_set
    assert notifier.progress("a") is None
    assert notifier.latest("a", after=0) is None


async def test_who_waits_for_any_job_is_told_of_each() -> None:
    notifier = JobNotifier()
    signals: list[Callable[[], None]] = [
        lambda: notifier.notify("a"),
        lambda: notifier.publish(an_event(1), "sweep"),
        lambda: notifier.forget("b"),
        notifier.close,
    ]
    for signal in signals:
        notification = notifier.any_notification()
        assert not notification.is_set

        signal()

        assert await notification.wait(60)


async def test_a_hold_wakes_the_watchers_of_any_job_when_it_begins_and_ends() -> None:
    notifier = JobNotifier()
    low, lower = (Hold(reason="LOW_DISK_SPACE", message=text) for text in ("1 GB", "0 GB"))
    changes = []
    for hold in (None, low, lower, None, None):
        notification = notifier.any_notification()
        assert notifier.set_hold(hold) is notification.is_set
        assert notifier.hold is hold
        changes.append(notification.is_set)

    assert changes == [False, True, False, True, False]
