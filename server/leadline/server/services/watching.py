"""Follows the events of a job or a sweep, from any sequence to the last."""

import time
from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

from leadline.server.errors import InvalidArgumentError, UnavailableError
from leadline.server.scheduling.notifier import JobNotifier

# How many events are read from the store at a time.
EVENTS_A_READ = 200


class Numbered(Protocol):
    """An event with a sequence."""

    @property
    def sequence(self) -> int:
        """1 for the first, without gaps."""


AnyEvent = TypeVar("AnyEvent", bound=Numbered)
View_co = TypeVar("View_co", covariant=True)
View = TypeVar("View")


class Watched(Protocol[AnyEvent, View_co]):
    """A job or a sweep that a stream follows.

    Attributes:
        key: its id, under which it has notifications.
        name: its resource name.
    """

    key: str
    name: str

    async def events(self, after_sequence: int) -> list[AnyEvent]:
        """The next events after a sequence, in order; empty if there are none yet."""

    def is_last(self, event: AnyEvent) -> bool:
        """Whether no other event follows."""

    async def progress(self) -> View_co:
        """Its current progress; views of the same progress are equal."""


async def follow(
    notifier: JobNotifier,
    watched: Watched[AnyEvent, View],
    *,
    after_sequence: int,
    progress_interval: float | None,
    keepalive_seconds: float,
) -> AsyncIterator[AnyEvent | View]:
    """Yields the events after `after_sequence`, each once, until the last.

    Between events it yields the progress: every `progress_interval` seconds if
    it has changed, and at least every `keepalive_seconds`, so that proxies keep
    the stream open.

    Raises:
        UnavailableError: the server shuts down before the last event.
    """
    shown: View | None = None
    last_yield = time.monotonic()
    while True:
        notification = notifier.notification(watched.key)
        for event in await watched.events(after_sequence):
            yield event
            after_sequence = event.sequence
            last_yield = time.monotonic()
            if watched.is_last(event):
                return
        if notification.is_set and not notifier.is_closed:
            continue
        if notifier.is_closed:
            raise UnavailableError(
                f"the server shuts down: watch {watched.name} again after its restart, "
                f"from after_sequence {after_sequence}"
            )
        timeout = last_yield + keepalive_seconds - time.monotonic()
        if await notification.wait(min(timeout, progress_interval or timeout)):
            continue
        view = await watched.progress()
        is_quiet = time.monotonic() - last_yield >= keepalive_seconds
        if is_quiet or (progress_interval and view != shown):
            yield view
            shown = view
            last_yield = time.monotonic()


def is_at_end(after_sequence: int, latest_sequence: int, *, is_final: bool) -> bool:
    """Whether no event follows the sequence `after_sequence`.

    Raises:
        InvalidArgumentError: there is no such event yet.
    """
    if after_sequence > latest_sequence:
        raise InvalidArgumentError.of(
            "after_sequence",
            f"is {after_sequence}, but the newest event is {latest_sequence}",
        )
    return is_final and after_sequence == latest_sequence
