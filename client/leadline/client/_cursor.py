"""Tracks the position of a watcher in the events of a job or a sweep."""

from typing import TypeVar

from leadline.client._errors import EventGapError
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.sweep_pb2 import SweepEvent

AnyEvent = TypeVar("AnyEvent", bound=JobEvent | SweepEvent)


class EventCursor:
    """Accepts each durable event exactly once, in order.

    Attributes:
        sequence: the sequence of the last accepted durable event.
        finished: whether this was the very last event.
    """

    def __init__(self, name: str, after_sequence: int, *, with_progress: bool = True) -> None:
        """Starts after a sequence.

        Without progress, it drops transient events, which a server sends anyway
        to keep proxies from closing a silent stream.
        """
        self.sequence = after_sequence
        self.finished = False
        self._name = name
        self._with_progress = with_progress

    def accept(self, event: JobEvent | SweepEvent) -> bool:
        """Whether the watcher should see the event.

        Raises:
            EventGapError: an event before this one is missing.
        """
        if event.sequence == 0:  # transient
            return self._with_progress and not self.finished
        if event.sequence <= self.sequence:
            return False
        if event.sequence != self.sequence + 1:
            raise EventGapError(self._name, self.sequence + 1, event.sequence)
        self.sequence = event.sequence
        self.finished = event.WhichOneof("event") == "finished"
        return True
