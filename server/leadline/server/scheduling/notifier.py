"""Notifies the watchers of a job that it has changed.

Watchers pull. A notification only wakes them. Each then reads the events after
its own position, from the latest events in memory or else from the store. So a
slow watcher needs no queue.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from itertools import islice

from leadline.server.jobs.job import Event, Hold, Progress

# How many events of a running job stay in memory: any number of watchers that keep
# up then cost the store nothing.
_CACHED_EVENTS = 32

# The key of notifications about any job: no id is empty.
_ANY = ""

# How many waiters wake at a time, and the seconds between two batches: a thousand
# watchers of one job must not delay a health check.
_BATCH = 20
_BATCH_SECONDS = 0.004


class Notification:
    """A one-shot event, like asyncio.Event, that wakes its waiters in small batches."""

    def __init__(self) -> None:
        self._is_set = False
        # In order of arrival; a dict makes removal cheap.
        self._waiters: dict[asyncio.Future[bool], None] = {}

    @property
    def is_set(self) -> bool:
        """Whether `set` was called."""
        return self._is_set

    def set(self) -> None:
        """Wakes all waiters; later ones do not wait."""
        self._is_set = True
        self._wake_some()

    async def wait(self, seconds: float) -> bool:
        """Waits at most `seconds`; returns whether the notification is set."""
        if self._is_set:
            return True
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiters[waiter] = None
        timer = loop.call_later(seconds, _settle, [waiter], False)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiters.pop(waiter, None)

    def _wake_some(self) -> None:
        woken = list(islice(self._waiters, _BATCH))
        for waiter in woken:
            del self._waiters[waiter]
        _settle(woken, True)
        if self._waiters:
            asyncio.get_running_loop().call_later(_BATCH_SECONDS, self._wake_some)


def _settle(waiters: Iterable[asyncio.Future[bool]], is_set: bool) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(is_set)


class JobNotifier:
    """Notifications, latest events and transient progress, by job id; the hold of all jobs.

    Sweeps have only notifications, under their ids: their events are those of
    their jobs, and watchers read them from the store.
    """

    def __init__(self) -> None:
        self._notifications: dict[str, Notification] = {}
        self._progress: dict[str, Progress] = {}
        self._latest: dict[str, deque[Event]] = {}
        self._hold: Hold | None = None
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the server shuts down, so that watchers must end."""
        return self._closed

    def notification(self, job_id: str) -> Notification:
        """The notification of the next change of a job or a sweep.

        Get it before you read, so that a change in between sets it.
        """
        if self._closed:
            closed = Notification()
            closed.set()
            return closed
        return self._notifications.setdefault(job_id, Notification())

    def any_notification(self) -> Notification:
        """The notification of the next change of any job or sweep; get it before you read."""
        return self.notification(_ANY)

    def notify(self, job_id: str, sweep_id: str | None = None) -> None:
        """Wakes the watchers of the job, of its sweep, and of any job."""
        for name in (job_id, sweep_id, _ANY):
            if name is not None and (notification := self._notifications.pop(name, None)):
                notification.set()

    def publish(self, event: Event, sweep_id: str | None = None) -> None:
        """Caches an event, which must be durable already, and wakes watchers.

        Args:
            event: the event.
            sweep_id: the sweep of the event's job, if any.
        """
        latest = self._latest.setdefault(event.job_id, deque(maxlen=_CACHED_EVENTS))
        if latest and event.sequence != latest[-1].sequence + 1:
            latest.clear()  # avoids a gap: events in between were not published
        latest.append(event)
        self.notify(event.job_id, sweep_id)

    def latest(self, job_id: str, *, after: int) -> list[Event] | None:
        """The events after the sequence `after`; None if the cache lacks some of them."""
        latest = self._latest.get(job_id)
        if not latest or not latest[0].sequence - 1 <= after < latest[-1].sequence:
            return None
        return [event for event in latest if event.sequence > after]

    def progress(self, job_id: str) -> Progress | None:
        """The latest progress of the job's worker."""
        return self._progress.get(job_id)

    def set_progress(self, job_id: str, progress: Progress) -> None:
        """Replaces the latest progress."""
        self._progress[job_id] = progress

    @property
    def hold(self) -> Hold | None:
        """Why queued jobs do not start although a device may be free; None without a hold."""
        return self._hold

    def set_hold(self, hold: Hold | None) -> bool:
        """Replaces the hold; returns whether a hold began or ended."""
        before, self._hold = self._hold, hold
        has_changed = bool(before) is not bool(hold)
        if has_changed:
            self.notify(_ANY)
        return has_changed

    def forget(self, job_id: str, sweep_id: str | None = None) -> None:
        """Drops the cached data of a job without a worker, and wakes its watchers."""
        self._progress.pop(job_id, None)
        self._latest.pop(job_id, None)
        self.notify(job_id, sweep_id)

    def close(self) -> None:
        """Wakes all watchers; later ones do not wait."""
        self._closed = True
        for job_id in list(self._notifications):
            self.notify(job_id)
