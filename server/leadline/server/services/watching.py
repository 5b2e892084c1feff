"""How the events of a job or a sweep are followed, from any point to the last."""

import time
from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

from leadline.server.errors import InvalidArgumentError, UnavailableError
from leadline.server.scheduling.notifier import JobNotifier

# How many events are read from the store at a time.
EVENTS_A_READ = 200


class Numbered(Protocol):
    """An event that has a number."""

    @property
    def sequence(self) -> int:
        """1 for the first, no gaps."""


AnyEvent = TypeVar("AnyEvent", bound=Numbered)
View_co = TypeVar("View_co", covariant=True)
View = TypeVar("View")


class Watched(Protocol[AnyEvent, View_co]):
    """What is followed.

    Attributes:
        key: under which the notifier tells of its news.
        name: its resource name.
    """

    key: str
    name: str

    async def events(self, after_sequence: int) -> list[AnyEvent]:
        """Some events from there on, in order; empty where there are none yet."""

    def is_last(self, event: AnyEvent) -> bool:
        """Whether no other follows."""

    async def progress(self) -> View_co:
        """How far it is at this moment; views of the same progress are equal."""


async def follow(
    notifier: JobNotifier,
    watched: Watched[AnyEvent, View],
    *,
    after_sequence: int,
    progress_interval: float | None,
    keepalive_seconds: float,
) -> AsyncIterator[AnyEvent | View]:
    """Yields the events after `after_sequence`, each once, until the last.

    While there is none it yields the progress: each `progress_interval` seconds
    if it has changed, and in any case often enough for no proxy to take the
    stream for dead.

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
        patience = last_yield + keepalive_seconds - time.monotonic()
        if await notification.wait(min(patience, progress_interval or patience)):
            continue
        view = await watched.progress()
        is_quiet = time.monotonic() - last_yield >= keepalive_seconds
        if is_quiet or (progress_interval and view != shown):
            yield view
            shown = view
            last_yield = time.monotonic()


def is_at_end(after_sequence: int, latest_sequence: int, *, is_final: bool) -> bool:
    """Whether nothing follows an event.

    Raises:
        InvalidArgumentError: there is no such event yet.
    """
    if after_sequence > latest_sequence:
        raise InvalidArgumentError.of(
            "after_sequence",
            f"is {after_sequence}, but the newest event is {latest_sequence}",
        )
    return is_final and after_sequence == latest_sequence
