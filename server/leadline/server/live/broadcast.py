"""What is new, read once and told to every page that is open.

While somebody watches, one task follows the notifier, asks the store what has
changed, and numbers that as a message. The latest messages are kept at hand.
Watchers pull, as those of a job do: each has a place of its own, and one who
fell behind all messages at hand, or comes from before a restart, is told the
whole anew. So nothing is queued for anyone, and one more page costs the store
nothing.
"""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from leadline.server.errors import StorageError, UnavailableError
from leadline.server.jobs.job import EpochCompleted, Event, Job
from leadline.server.live.cards import point, progress_card
from leadline.server.live.errors import TooBusyError
from leadline.server.live.overview import Overview, read_overview
from leadline.server.scheduling.notifier import JobNotifier, Notification
from leadline.server.services.watching import EVENTS_A_READ
from leadline.server.storage.store import Store
from leadline.server.thread_pool import ThreadPool

_LOG = structlog.get_logger(__name__)

# Pages that may be open at a time.
MOST_WATCHERS = 32

# Messages at hand: a minute or more of a busy server.
_AT_HAND = 256

# News that come closer together than this are told as one.
_GATHER_SECONDS = 0.25

# How often the progress within an epoch is looked at, which is in memory.
_PROGRESS_SECONDS = 1.0

# How long to wait before a store that failed is asked again.
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Message:
    """One thing to tell a page.

    Attributes:
        id: by which a page says up to where it was told; None where nothing is new.
        kind: "snapshot", "change", "progress", "trouble" or "alive".
        data: what is told, as JSON.
    """

    id: str | None
    kind: str
    data: str


ALIVE = Message(id=None, kind="alive", data="{}")
"""Says that nothing is new."""

_UNREAD = Overview()


class Broadcast:
    """Tells pages what is new."""

    def __init__(
        self, *, store: Store, threads: ThreadPool, notifier: JobNotifier, quiet_seconds: float
    ) -> None:
        """Makes a broadcast, which does nothing until somebody watches.

        Args:
            store: where jobs are kept.
            threads: where the store's calls block.
            notifier: who tells that there is news.
            quiet_seconds: after which a watcher is told that nothing is new.
        """
        self._store = store
        self._threads = threads
        self._notifier = notifier
        self._quiet_seconds = quiet_seconds
        # Of this start: another's numbers mean something else.
        self._start = secrets.token_hex(4)
        self._number = 0
        self._messages: deque[Message] = deque(maxlen=_AT_HAND)
        self._news = Notification()
        self._overview = _UNREAD
        self._trouble = ""
        self._progress: dict[str, dict[str, Any]] = {}
        self._watchers = 0
        self._task: asyncio.Task[None] | None = None
        self._has_read = asyncio.Event()

    async def watch(self, after: str | None) -> AsyncGenerator[Message, None]:
        """Yields what is new after the message of the id `after`, until the server stops.

        The whole comes first where `after` is None, or names a message that is
        no longer at hand; before it, where it cannot be read yet, comes why.
        `ALIVE` comes where nothing else has for a while.

        Raises:
            TooBusyError: enough others watch.
            UnavailableError: the server shuts down.
        """
        if self._notifier.is_closed:
            raise UnavailableError("the server shuts down: come again after its restart")
        with self._watching() as task:
            await self._has_read.wait()
            async with aclosing(self._until_read(task)) as reasons:
                async for reason in reasons:
                    yield reason
            place = self._place(after)
            # A page that watches what has ended comes again, to what has begun since.
            while self._task is task and self._overview is not _UNREAD:
                news = self._news
                if place is None or place < self._number - len(self._messages):
                    place = self._number
                    yield self._message("snapshot", self._whole())
                elif place < self._number:
                    message = self._messages[place - self._number]
                    place += 1
                    yield message
                elif task.done():
                    return
                elif not await news.wait(self._quiet_seconds):
                    yield ALIVE

    async def _until_read(self, task: "asyncio.Task[None]") -> AsyncGenerator[Message, None]:
        """Yields why nothing is known yet, for as long as that is so."""
        trouble = ""
        while self._overview is _UNREAD and not task.done():
            news = self._news
            if trouble != self._trouble:
                trouble = self._trouble
                yield self._message("trouble", {"message": trouble}, is_numbered=False)
            elif not await news.wait(self._quiet_seconds):
                yield ALIVE

    def _place(self, after: str | None) -> int | None:
        """The number of the message of an id; None where it is not one of this start's."""
        start, _, number = (after or "").partition("-")
        if start != self._start or not number.isdecimal() or int(number) > self._number:
            return None
        return int(number)

    @contextmanager
    def _watching(self) -> Iterator[asyncio.Task[None]]:
        """Has the task run while there is a watcher."""
        if self._watchers >= MOST_WATCHERS:
            raise TooBusyError(f"{MOST_WATCHERS} pages are open, which is the limit: close some")
        if self._task is None or self._task.done():
            self._has_read.clear()
            self._task = asyncio.create_task(self._run(), name="live-page")
            self._task.add_done_callback(_log_end)
        self._watchers += 1
        try:
            yield self._task
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._task.cancel()

    async def _run(self) -> None:
        # What was at hand is of when somebody watched last.
        self._messages.clear()
        self._number += 1
        self._overview = _UNREAD
        try:
            while not self._notifier.is_closed:
                notification = self._notifier.any_notification()
                self._tell_trouble(trouble := await self._read())
                self._has_read.set()
                if trouble:
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                while not await notification.wait(_PROGRESS_SECONDS):
                    self._tell_progress()
                await asyncio.sleep(_GATHER_SECONDS)
        finally:
            self._has_read.set()
            self._wake()

    async def _read(self) -> str:
        """Asks the store what has changed, and tells that; returns why it could not."""
        before = self._overview
        try:
            now = await self._threads.run(read_overview, self._store)
            curves = await self._new_points(before, now)
        except StorageError as error:
            _LOG.error("the job store failed: trying again", why=str(error))
            return str(error)
        self._overview = now
        if before is _UNREAD:
            self._wake()  # who waits for the whole
        elif (changed := now.since(before)) or curves:
            self._tell("change", {**changed, "curves": curves})
        self._tell_progress()
        return ""

    async def _new_points(self, before: Overview, now: Overview) -> dict[str, list[list[float]]]:
        """The epochs, by job, that were completed in between."""
        curves = {}
        for name, job in now.jobs.items():
            known = before.jobs.get(name)
            if known and known.completed_epochs < job.completed_epochs:
                events = await self._events(job, known.latest_sequence)
                curves[name] = [
                    point(event.body) for event in events if isinstance(event.body, EpochCompleted)
                ]
        return curves

    async def _events(self, job: Job, after: int) -> list[Event]:
        at_hand = self._notifier.latest(job.job_id, after=after)
        if at_hand is None:
            return await self._threads.run(
                self._store.jobs.events, job.job_id, after=after, limit=EVENTS_A_READ
            )
        return [event for event in at_hand if event.sequence <= job.latest_sequence]

    def _tell_progress(self) -> None:
        progress = {}
        for job in self._overview.running:
            found = self._notifier.progress(job.job_id)
            if found is not None:
                progress[job.job_id] = progress_card(job, found)
        if progress != self._progress:
            self._progress = progress
            self._tell("progress", progress)

    def _tell_trouble(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._tell("trouble", {"message": trouble})

    def _whole(self) -> dict[str, Any]:
        return {
            **self._overview.to_dict(),
            "progress": self._progress,
            "trouble": self._trouble,
            "quiet_seconds": self._quiet_seconds,
        }

    def _tell(self, kind: str, data: Mapping[str, Any]) -> None:
        self._number += 1
        self._messages.append(self._message(kind, data))
        self._wake()

    def _message(self, kind: str, data: Mapping[str, Any], *, is_numbered: bool = True) -> Message:
        number = f"{self._start}-{self._number}" if is_numbered else None
        return Message(id=number, kind=kind, data=json.dumps(data))

    def _wake(self) -> None:
        news, self._news = self._news, Notification()
        news.set()


def _log_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _LOG.error("the live page has failed: it is tried again", exc_info=error)
