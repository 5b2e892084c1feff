"""An open loop: starts calls at a constant rate, independent of the latency.

A closed loop sends fewer calls to a slow server, and so hides how long callers would wait. Here
each call has a due time, and its latency counts from then, even if it was sent late. The lag of the
sending is measured too, because the server does not cause it.
"""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc
import numpy as np
from google.rpc import error_details_pb2, status_pb2

from harness.stats import Times

_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(slots=True)
class Call:
    """One call. Times are seconds of the monotonic clock."""

    due: float
    sent: float = 0.0
    ended: float = 0.0
    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    retry_after: float | None = None
    """The server's retry delay in seconds; None without one."""

    answer: Any = None
    """The response, if the status is OK."""

    error: str = ""
    """The status message, if the status is not OK."""

    @property
    def is_answered(self) -> bool:
        """Whether the status is OK."""
        return self.code is grpc.StatusCode.OK

    @property
    def is_refused(self) -> bool:
        """Whether the server refused it correctly, with a retry delay."""
        return self.code is grpc.StatusCode.RESOURCE_EXHAUSTED and self.retry_after is not None


@dataclass
class Outcome:
    """The results of all calls."""

    calls: list[Call] = field(default_factory=list)

    @property
    def answered(self) -> list[Call]:
        """The calls with status OK."""
        return [call for call in self.calls if call.is_answered]

    @property
    def refused(self) -> list[Call]:
        """The calls that the server refused with a retry delay."""
        return [call for call in self.calls if call.is_refused]

    @property
    def lost(self) -> list[Call]:
        """The calls that were neither answered nor refused."""
        return [call for call in self.calls if not (call.is_answered or call.is_refused)]

    def lags(self) -> Times:
        """How late each call was sent, in milliseconds."""
        return np.array([(call.sent - call.due) * 1e3 for call in self.calls])


def latencies(calls: list[Call], *, since: Literal["due", "sent"] = "due") -> Times:
    """Returns the milliseconds from the due time of each call, or from its sending, to its end."""
    return np.array([(call.ended - getattr(call, since)) * 1e3 for call in calls])


def run_open_loop(
    start: Callable[[], Any], *, per_second: float, seconds: float, patience: float = 60.0
) -> Outcome:
    """Starts calls at a constant rate, and waits until all have ended.

    Args:
        start: starts a call, and returns its future.
        per_second: the rate in calls per second.
        seconds: how long to start calls.
        patience: how long to wait for the last call, in seconds.

    Raises:
        TimeoutError: calls have not ended within `patience`.
    """
    began = time.monotonic() + 0.1
    calls = [Call(due=began + number / per_second) for number in range(int(per_second * seconds))]
    pending = _Pending(len(calls))
    with _no_collections():
        for call in calls:
            # Precise to about 0.1 ms; the timers of an event loop are precise to 1 ms.
            if (wait := call.due - time.monotonic()) > 0:
                time.sleep(wait)
            call.sent = time.monotonic()
            start().add_done_callback(_noting(call, pending))
        if not pending.wait(patience):
            raise TimeoutError(f"{pending.count} calls have not ended {patience:.0f} s after all")
    return Outcome(calls)


def call_now(start: Callable[[], Any]) -> Call:
    """Makes one call now, and waits until it has ended.

    Args:
        start: starts the call, and returns its future. The call must have a timeout.
    """
    now = time.monotonic()
    call, pending = Call(due=now, sent=now), _Pending(1)
    start().add_done_callback(_noting(call, pending))
    pending.wait(None)
    return call


@contextmanager
def _no_collections() -> Iterator[None]:
    """Disables garbage collection, which takes long with many calls."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Pending:
    def __init__(self, count: int) -> None:
        self.count = count
        self._lock = threading.Lock()
        self._none_left = threading.Event()

    def one_ended(self) -> None:
        with self._lock:
            self.count -= 1
            if not self.count:
                self._none_left.set()

    def wait(self, seconds: float | None) -> bool:
        return self._none_left.wait(seconds)


def _noting(call: Call, pending: _Pending) -> Callable[[Any], None]:
    def note(future: Any) -> None:
        call.ended = time.monotonic()
        try:
            call.code = future.code()
            if call.is_answered:
                call.answer = future.result()
            else:
                call.error = future.details()
                call.retry_after = _retry_after(future)
        finally:
            pending.one_ended()

    return note


def _retry_after(future: Any) -> float | None:
    metadata = dict(future.trailing_metadata() or ())
    status = status_pb2.Status.FromString(metadata.get(_DETAILS_KEY, b""))
    for detail in status.details:
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return float(info.retry_delay.ToTimedelta().total_seconds())
    return None
