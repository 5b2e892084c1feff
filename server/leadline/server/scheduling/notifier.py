"""How watchers of a job learn that it has news.

Watchers pull: a notice only wakes them, and each takes what it has not seen,
from the latest events that are kept here or, further back, from the store. So
a slow watcher holds nothing but its own place, and nothing is queued for
anyone.
"""

import asyncio
from collections import deque
from collections.abc import Iterable

from leadline.server.jobs.job import Event, Progress

# Events of a running job that are kept at hand: watchers who keep up, however
# many, then cost the store nothing.
_EVENTS_AT_HAND = 32


# Under which those wait who wait for news of any job: no id of one is empty.
_ANY = ""

# How many waiters are woken at a time, and how long the others then wait: a
# thousand watchers of one job must not keep a health check waiting.
_SLICE = 20
_SLICE_SECONDS = 0.004


class Notification:
    """The next news of a job, which those who wait for it learn a few at a time."""

    def __init__(self) -> None:
        self._is_set = False
        # In the order of their coming; a dict, so that leaving is cheap.
        self._waiters: dict[asyncio.Future[bool], None] = {}

    @property
    def is_set(self) -> bool:
        """Whether there is news."""
        return self._is_set

    def set(self) -> None:
        """Tells everyone, now and later."""
        self._is_set = True
        self._wake_some()

    async def wait(self, seconds: float) -> bool:
        """Waits so long for the news; returns whether it came."""
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
        woken = list(self._waiters)[:_SLICE]
        for waiter in woken:
            del self._waiters[waiter]
        _settle(woken, True)
        if self._waiters:
            asyncio.get_running_loop().call_later(_SLICE_SECONDS, self._wake_some)


def _settle(waiters: Iterable[asyncio.Future[bool]], has_come: bool) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(has_come)


class JobNotifier:
    """Notices of changes, latest events and transient progress, by job id.

    Of a sweep there are notices alone, under its id: its events are those of its
    jobs, and are read from the store.
    """

    def __init__(self) -> None:
        self._notifications: dict[str, Notification] = {}
        self._progress: dict[str, Progress] = {}
        self._latest: dict[str, deque[Event]] = {}
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the server shuts down, and watchers must leave."""
        return self._closed

    def notification(self, job_id: str) -> Notification:
        """What the next news of the job, or the sweep, will set.

        Ask before reading: news in between then sets it.
        """
        if self._closed:
            closed = Notification()
            closed.set()
            return closed
        return self._notifications.setdefault(job_id, Notification())

    def any_notification(self) -> Notification:
        """What the next news of any job or sweep will set; ask before reading."""
        return self.notification(_ANY)

    def notify(self, job_id: str, sweep_id: str | None = None) -> None:
        """Wakes all who wait for the next news of the job, of its sweep, or of any job."""
        for name in (job_id, sweep_id, _ANY):
            if name is not None and (notification := self._notifications.pop(name, None)):
                notification.set()

    def publish(self, event: Event, sweep_id: str | None = None) -> None:
        """Hands out an event, which must be durable already.

        Args:
            event: what has happened.
            sweep_id: the sweep that the event's job is a part of, if any.
        """
        latest = self._latest.setdefault(event.job_id, deque(maxlen=_EVENTS_AT_HAND))
        if latest and event.sequence != latest[-1].sequence + 1:
            latest.clear()  # some were told by other ways: what is at hand has no gaps
        latest.append(event)
        self.notify(event.job_id, sweep_id)

    def latest(self, job_id: str, *, after: int) -> list[Event] | None:
        """The events after the sequence `after`; None where only the store knows."""
        latest = self._latest.get(job_id)
        if not latest or not latest[0].sequence - 1 <= after < latest[-1].sequence:
            return None
        return [event for event in latest if event.sequence > after]

    def progress(self, job_id: str) -> Progress | None:
        """The latest progress of the job's present worker."""
        return self._progress.get(job_id)

    def set_progress(self, job_id: str, progress: Progress) -> None:
        """Replaces the latest progress."""
        self._progress[job_id] = progress

    def forget(self, job_id: str, sweep_id: str | None = None) -> None:
        """Lets go of a job that no worker has any more, and wakes its watchers and its sweep's."""
        self._progress.pop(job_id, None)
        self._latest.pop(job_id, None)
        self.notify(job_id, sweep_id)

    def close(self) -> None:
        """Wakes everyone for good."""
        self._closed = True
        for job_id in list(self._notifications):
            self.notify(job_id)
