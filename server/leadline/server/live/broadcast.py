"""Reads changes once, and sends them to every open page.

While at least one page watches, a task waits for notifications, reads the
activity, and numbers each change as a message. It keeps the latest messages.
Watchers pull: each has its own offset. A watcher whose offset is older than all
kept messages, or from before a restart, receives a full snapshot. So a slow page
needs no queue, and an additional page costs no query.
"""

import asyncio
import json
import secrets
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from leadline.server.errors import StorageError, UnavailableError
from leadline.server.jobs.job import EpochCompleted
from leadline.server.live.cards import point, progress_card
from leadline.server.live.overview import Overview
from leadline.server.scheduling.notifier import JobNotifier, Notification
from leadline.server.services.activity import Activity, ActivityService

_LOG = structlog.get_logger(__name__)

# The most open pages. A further page replaces the oldest page of the host that has most, so a
# host that opens many pages cannot lock others out.
MAX_WATCHERS = 32

# The number of kept messages: at least a minute of a busy server.
_KEPT_MESSAGES = 256

# Changes within this time are coalesced into one message.
_COALESCE_SECONDS = 0.25

# The interval at which the progress within an epoch is sent.
_PROGRESS_SECONDS = 1.0

# The delay before a failed store is read again.
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Message:
    """A server-sent event.

    Attributes:
        id: the offset from which a page resumes; None for a message without an offset.
        kind: "snapshot", "change", "progress", "store_error" or "keepalive". Not
            "error", which browsers use for a lost connection.
        data: JSON.
    """

    id: str | None
    kind: str
    data: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Watcher:
    """An open page.

    Attributes:
        host: the page's address.
        disconnect: called when another page replaces it.
    """

    host: str
    disconnect: Callable[[], None]


KEEPALIVE = Message(id=None, kind="keepalive", data="{}")
"""Reports that nothing has changed."""

_UNREAD = Overview(Activity())


class Broadcast:
    """Sends changes to pages."""

    def __init__(
        self, *, activity: ActivityService, notifier: JobNotifier, quiet_seconds: float
    ) -> None:
        """Makes a broadcast, which does nothing until a page watches.

        Args:
            activity: reads the store.
            notifier: announces changes.
            quiet_seconds: the silence after which a watcher receives `KEEPALIVE`.
        """
        self._activity = activity
        self._notifier = notifier
        self._quiet_seconds = quiet_seconds
        # Offsets are valid until the server restarts.
        self._start = secrets.token_hex(4)
        self._offset = 0
        self._messages: deque[Message] = deque(maxlen=_KEPT_MESSAGES)
        self._notification = Notification()
        self._overview = _UNREAD
        self._error = ""
        self._progress: dict[str, dict[str, Any]] = {}
        self._watchers: dict[Watcher, None] = {}  # oldest first
        self._task: asyncio.Task[None] | None = None
        self._has_read = asyncio.Event()

    async def watch(self, after: str | None, watcher: Watcher) -> AsyncGenerator[Message, None]:
        """Yields the messages after the id `after`, until the server stops.

        Yields a snapshot first if `after` is None or older than all kept messages.
        Until the store can be read, yields its errors. Yields `KEEPALIVE` after each
        silence.

        Raises:
            UnavailableError: the server shuts down.
        """
        if self._notifier.is_closed:
            raise UnavailableError("the server shuts down: reconnect after its restart")
        with self._watching(watcher) as task:
            await self._has_read.wait()
            async with aclosing(self._until_read(task)) as errors:
                async for error in errors:
                    yield error
            offset = self._parse_offset(after)
            # When the task ends, the page reconnects and finds a newer task.
            while self._task is task and self._overview is not _UNREAD:
                notification = self._notification
                message, offset = self._next_message(offset)
                if message is None and task.done():
                    return
                if message is not None:
                    yield message
                elif not await notification.wait(self._quiet_seconds):
                    yield KEEPALIVE

    def _next_message(self, offset: int | None) -> tuple[Message | None, int]:
        """The message at an offset, None if there is none yet, and the next offset."""
        if offset is None or offset < self._offset - len(self._messages):
            return self._message("snapshot", self._snapshot()), self._offset
        if offset < self._offset:
            return self._messages[offset - self._offset], offset + 1
        return None, offset

    async def _until_read(self, task: "asyncio.Task[None]") -> AsyncGenerator[Message, None]:
        """Yields the store's errors until the first successful read."""
        error = ""
        while self._overview is _UNREAD and not task.done():
            notification = self._notification
            if error != self._error:
                error = self._error
                yield self._message("store_error", {"message": error}, has_id=False)
            elif not await notification.wait(self._quiet_seconds):
                yield KEEPALIVE

    def _parse_offset(self, message_id: str | None) -> int | None:
        """The offset in a message's id; None if the id is not from this start."""
        start, _, offset = (message_id or "").partition("-")
        if start != self._start or not offset.isdecimal() or int(offset) > self._offset:
            return None
        return int(offset)

    @contextmanager
    def _watching(self, watcher: Watcher) -> Iterator[asyncio.Task[None]]:
        """Runs the task while there is a watcher."""
        if len(self._watchers) >= MAX_WATCHERS:
            self._disconnect_one()
        if self._task is None or self._task.done():
            self._has_read.clear()
            self._task = asyncio.create_task(self._run(), name="live-page")
            self._task.add_done_callback(_log_end)
        self._watchers[watcher] = None
        try:
            yield self._task
        finally:
            self._watchers.pop(watcher, None)
            if not self._watchers:
                self._task.cancel()

    def _disconnect_one(self) -> None:
        counts = Counter(watcher.host for watcher in self._watchers)
        ((host, _),) = counts.most_common(1)
        oldest = next(watcher for watcher in self._watchers if watcher.host == host)
        del self._watchers[oldest]
        oldest.disconnect()
        _LOG.warning("too many live pages are open: the oldest is disconnected", host=host)

    async def _run(self) -> None:
        # The kept messages are outdated, because no page was watching.
        self._messages.clear()
        self._offset += 1
        self._overview = _UNREAD
        try:
            while not self._notifier.is_closed:
                notification = self._notifier.any_notification()
                self._publish_error(error := await self._read())
                self._has_read.set()
                if error:
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                while not await notification.wait(_PROGRESS_SECONDS):
                    self._publish_progress()
                await asyncio.sleep(_COALESCE_SECONDS)
        finally:
            self._has_read.set()
            self._wake()

    async def _read(self) -> str:
        """Reads the store and publishes what has changed; returns the store's error."""
        before = self._overview
        try:
            now = Overview(await self._activity.read())
            curves = await self._new_points(before, now)
        except StorageError as error:
            _LOG.error("the job store failed: trying again", why=str(error))
            return str(error)
        self._overview = now
        if before is _UNREAD:
            self._wake()  # watchers wait for the snapshot
        elif (changed := now.since(before)) or curves:
            self._publish("change", {**changed, "curves": curves})
        self._publish_progress()
        return ""

    async def _new_points(self, before: Overview, now: Overview) -> dict[str, list[list[float]]]:
        """The points of the epochs that were completed between two overviews, by job."""
        curves = {}
        for name, job in now.activity.jobs.items():
            known = before.activity.jobs.get(name)
            if known and known.completed_epochs < job.completed_epochs:
                events = await self._activity.events(job, after=known.latest_sequence)
                curves[name] = [
                    point(event.body) for event in events if isinstance(event.body, EpochCompleted)
                ]
        return curves

    def _publish_progress(self) -> None:
        cards = {
            job.job_id: progress_card(job, progress)
            for job in self._overview.running
            if (progress := self._notifier.progress(job.job_id)) is not None
        }
        if cards != self._progress:
            self._progress = cards
            self._publish("progress", cards)

    def _publish_error(self, error: str) -> None:
        if error != self._error:
            self._error = error
            self._publish("store_error", {"message": error})

    def _snapshot(self) -> dict[str, Any]:
        return {
            **self._overview.to_dict(),
            "progress": self._progress,
            "store_error": self._error,
            "quiet_seconds": self._quiet_seconds,
        }

    def _publish(self, kind: str, data: Mapping[str, Any]) -> None:
        self._offset += 1
        self._messages.append(self._message(kind, data))
        self._wake()

    def _message(self, kind: str, data: Mapping[str, Any], *, has_id: bool = True) -> Message:
        message_id = f"{self._start}-{self._offset}" if has_id else None
        return Message(id=message_id, kind=kind, data=json.dumps(data))

    def _wake(self) -> None:
        notification, self._notification = self._notification, Notification()
        notification.set()


def _log_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _LOG.error("the live page has failed: it is tried again", exc_info=error)
