"""Where a watcher stands in the events of a job or a sweep."""

from leadline.client._errors import EventGapError
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.sweep_pb2 import SweepEvent


class EventCursor:
    """Lets each durable event pass exactly once, in order.

    Attributes:
        sequence: of the last durable event that passed.
        finished: whether that was the last there is.
    """

    def __init__(self, name: str, after_sequence: int, *, with_progress: bool = True) -> None:
        """Starts after a sequence.

        Without progress, transient events do not pass: a server sends some
        unasked, so that no proxy takes a quiet stream for dead.
        """
        self.sequence = after_sequence
        self.finished = False
        self._name = name
        self._with_progress = with_progress

    def accept(self, event: JobEvent | SweepEvent) -> bool:
        """Whether the event is new to the watcher, and wanted.

        Raises:
            EventGapError: an event before this one never came.
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
