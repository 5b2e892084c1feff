"""Large reads: few at a time, with fair turns, bounded waits, and in slices.

A listing, a sweep with its jobs or an inspection may take seconds. The read lane
bounds how many run and wait. Each ends when its caller leaves: see `thread_pool`.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

from leadline.server.errors import ResourceExhaustedError
from leadline.server.thread_pool import ThreadPool, check_abandoned

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# The most calls that wait for a thread, of all callers together.
_MAX_WAITING = 64

# The longest wait of a call, and the delay after which to retry a refused call.
_MAX_WAIT_SECONDS = 5.0
_RETRY_SECONDS = 2.0


class ReadLane:
    """Threads for expensive reads, which callers share by round robin.

    If there are several threads, no caller gets the last one, so the next caller finds
    it free. A free thread goes to the caller with the fewest threads, then to the one
    whose last turn is longest ago. If too many calls wait, the newest call of the caller
    with most calls is refused. Cheap reads and writes have other threads.
    """

    def __init__(
        self,
        name: str,
        threads: int,
        *,
        max_waiting: int = _MAX_WAITING,
        max_wait_seconds: float = _MAX_WAIT_SECONDS,
    ) -> None:
        self._threads = ThreadPool(name, threads)
        self._free = threads
        self._most_each = max(1, threads - 1)
        self._running: Counter[str] = Counter()
        self._max_waiting = max_waiting
        self._max_wait_seconds = max_wait_seconds
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many calls wait for a thread."""
        return sum(len(line) for line in self._waiting.values())

    async def run(
        self, caller: str, call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Runs `call(*args, **kwargs)` in a thread, and returns its result.

        Args:
            caller: identifies the caller; callers take turns.
            call: blocks, and ends soon after it is abandoned.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Raises:
            ResourceExhaustedError: no thread is free soon.
        """
        if self._free and self._running[caller] < self._most_each:
            self._take(caller)
        else:
            await self._wait(caller)
        started = self._threads.start(partial(call, *args, **kwargs))
        # The thread is free when the call ends, even if its caller has left before.
        release = partial(asyncio.get_running_loop().call_soon_threadsafe, self._release, caller)
        started.future.add_done_callback(lambda _: release())
        return await started.result()

    def close(self) -> None:
        """Abandons the calls that have started, and stops the threads when they end."""
        self._threads.close()

    async def _wait(self, caller: str) -> None:
        """Waits for a thread, which then belongs to the caller."""
        self._make_room(caller)
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(caller, deque()).append(place)
        timer = loop.call_later(self._max_wait_seconds, self._refuse, caller, place)
        try:
            await place
        except asyncio.CancelledError:
            self._leave(caller, place)
            if not place.cancelled() and place.exception() is None:
                self._release(caller)  # it had just received the thread
            raise
        finally:
            timer.cancel()

    def _make_room(self, caller: str) -> None:
        if self.waiting < self._max_waiting:
            return
        longest = max(self._waiting, key=lambda name: len(self._waiting[name]))
        if len(self._waiting[longest]) <= len(self._waiting.get(caller, ())) + 1:
            raise _too_many_reads()
        self._refuse(longest, self._waiting[longest][-1])

    def _refuse(self, caller: str, place: asyncio.Future[None]) -> None:
        if not place.done():
            self._leave(caller, place)
            place.set_exception(_too_many_reads())

    def _leave(self, caller: str, place: asyncio.Future[None]) -> None:
        line = self._waiting.get(caller, deque())
        if place in line:
            line.remove(place)
        if not line:
            self._waiting.pop(caller, None)

    def _take(self, caller: str) -> None:
        self._free -= 1
        self._running[caller] += 1

    def _release(self, caller: str) -> None:
        """Passes a caller's thread to the next waiting call, or frees it."""
        self._free += 1
        self._running[caller] -= 1
        if not self._running[caller]:
            del self._running[caller]
        while self._waiting:
            following = min(self._waiting, key=lambda name: self._running[name])
            if self._running[following] >= self._most_each:
                return
            line = self._waiting.pop(following)
            place = line.popleft()
            if line:
                self._waiting[following] = line
            if not place.done():  # its caller has not left
                self._take(following)
                place.set_result(None)
                return


class SliceReader(Protocol[T_co]):
    """Reads a slice of a list; blocks."""

    def __call__(self, *, before: int | None, limit: int) -> Sequence[T_co]:
        """Returns the first `limit` entries numbered below `before`, the highest number first."""


def in_slices(
    read: SliceReader[T], number_of: Callable[[T], int], *, before: int | None, size: int
) -> Iterator[T]:
    """Yields the entries numbered below `before`; reads `size` at a time, lazily.

    Raises:
        AbandonedError: the current call is abandoned.
    """
    while entries := read(before=before, limit=size):
        for entry in entries:
            check_abandoned()
            yield entry
        before = number_of(entries[-1])


def _too_many_reads() -> ResourceExhaustedError:
    return ResourceExhaustedError(
        "too many large reads wait: try again soon, or request smaller pages",
        reason="TOO_MANY_READS",
        retry_after=_RETRY_SECONDS,
    )
