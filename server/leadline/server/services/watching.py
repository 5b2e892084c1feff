"""Follows the events of a job or a sweep, from any sequence to the last."""

import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from leadline.server.errors import InvalidArgumentError, UnavailableError
from leadline.server.jobs.job import Event, Job
from leadline.server.scheduling.notifier import JobNotifier
from leadline.server.sweeps.sweep import Sweep, SweepEvent

# How many events to read from the store at a time.
EVENTS_A_READ = 200

# How many results to cache for callers to share: jobs, sweeps, lists of events, messages.
SHARED_VIEWS = 4_096
SHARED_EVENTS = 64
SHARED_MESSAGES = 16

AnyEvent = TypeVar("AnyEvent", bound=Event | SweepEvent)
View = TypeVar("View")


@dataclass(kw_only=True)
class EventSource(Generic[AnyEvent, View]):
    """The events of one job or sweep.

    Attributes:
        key: the id in the notifier.
        name: the resource name.
        current: reads the job or the sweep.
        events: reads events after a sequence.
        is_last: whether no event follows this one.
        progress: reads the transient progress.
    """

    key: str
    name: str
    current: Callable[[], Coroutine[Any, Any, Job | Sweep]]
    events: Callable[[int], Coroutine[Any, Any, list[AnyEvent]]]
    is_last: Callable[[AnyEvent], bool]
    progress: Callable[[], Coroutine[Any, Any, View]]


async def follow(
    notifier: JobNotifier,
    source: EventSource[AnyEvent, View],
    *,
    after_sequence: int,
    progress_interval: float | None,
    keepalive_seconds: float,
) -> AsyncIterator[AnyEvent | View]:
    """Yields the events after `after_sequence`, each once, until the last.

    Also yields the progress: every `progress_interval` seconds if it has changed,
    and at least every `keepalive_seconds`, so that proxies keep the stream open.

    Raises:
        UnavailableError: the server shuts down before the last event.
    """
    shown: View | None = None
    last_yield = time.monotonic()
    while True:
        notification = notifier.notification(source.key)
        for event in await source.events(after_sequence):
            yield event
            after_sequence = event.sequence
            last_yield = time.monotonic()
            if source.is_last(event):
                return
        if notification.is_set and not notifier.is_closed:
            continue
        if notifier.is_closed:
            raise UnavailableError(
                f"the server shuts down: watch {source.name} again after its restart, "
                f"from after_sequence {after_sequence}"
            )
        timeout = last_yield + keepalive_seconds - time.monotonic()
        if await notification.wait(min(timeout, progress_interval or timeout)):
            continue
        view = await source.progress()
        is_quiet = time.monotonic() - last_yield >= keepalive_seconds
        if is_quiet or (progress_interval and view != shown):
            yield view
            shown = view
            last_yield = time.monotonic()


def is_at_end(after_sequence: int, latest_sequence: int, *, is_final: bool) -> bool:
    """Whether no event follows the sequence `after_sequence`.

    Raises:
        InvalidArgumentError: the sequence is higher than the newest one.
    """
    if after_sequence > latest_sequence:
        raise InvalidArgumentError.of(
            "after_sequence",
            f"is {after_sequence}, but the newest event is {latest_sequence}",
        )
    return is_final and after_sequence == latest_sequence
