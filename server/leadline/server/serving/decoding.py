"""Threads that decode the images of requests, in fair turns.

Small requests, which take milliseconds, have separate threads, so they never wait behind
large images. Other threads decode large requests step by step. The next step is for the
caller who has used the least thread time: neither a large request nor a busy caller delays
others. If the caller has left, the deadline has passed or the server stops, a step ends early.
"""

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import Protocol

from leadline.models.images import DecodingStoppedError
from leadline.server.errors import DeadlineExceededError, ResourceExhaustedError
from leadline.server.serving.inputs import Pixels, Steps

# Decoding releases the GIL.
_THREADS = 2
_LARGE_THREADS = 2

# Pixels that both threads decode in a second, to estimate when to try again.
_WORK_PER_SECOND = 50_000_000
_RETRY_SECONDS = (1.0, 30.0)

# How many callers' thread times are kept before those that no longer matter are dropped.
_REMEMBERED = 1_024


class DecodingObserver(Protocol):
    """Observes decoding; the metrics implement it."""

    def on_abandoned_decoding(self) -> None:
        """A request was dropped undecoded: its caller left, or its deadline passed."""


class DecoderPool:
    """Decodes the images of requests in threads."""

    def __init__(self, *, max_large_work: int, observer: DecodingObserver) -> None:
        """Starts the threads.

        Args:
            max_large_work: the most pixels of large requests that may wait; more are refused. A
                caller that already has some waiting may use half of it, so that others have room.
            observer: is notified of dropped requests.
        """
        self._max_large_work = max_large_work
        self._observer = observer
        self._is_closing = False
        self._large = _Lane("decode-large", _LARGE_THREADS, self._advance)
        self._small = _Lane("decode", _THREADS, self._advance, then=self._large)
        self._large_lock = threading.Lock()
        self._large_work: dict[_Work, int] = {}

    @property
    def large_work(self) -> int:
        """The pixels of large requests that are not decoded yet."""
        with self._large_lock:
            return sum(self._large_work.values())

    async def run(
        self,
        read: Callable[[], Pixels | Steps],
        *,
        caller: str,
        deadline: float | None,
        wait_if_full: bool,
    ) -> Pixels:
        """Returns the pixels that `read` returns, or that its last step returns.

        Args:
            read: called in a thread.
            caller: identifies the caller; callers get equal shares of thread time.
            deadline: by the monotonic clock; None without one.
            wait_if_full: whether to wait if too many pixels wait already.

        Raises:
            ResourceExhaustedError: too many pixels wait, and `wait_if_full` is false.
            DeadlineExceededError: the deadline passed before the end.
            Exception: an error of `read` or its steps.
        """
        work = _Work(read, caller, deadline, wait_if_full=wait_if_full)
        self._small.add(work)
        try:
            return await work.pixels
        except (asyncio.CancelledError, DeadlineExceededError):
            self._small.discard(work)
            self._large.discard(work)
            self._observer.on_abandoned_decoding()
            raise
        finally:
            if work.steps is not None:
                with self._large_lock:
                    self._large_work.pop(work, None)

    def close(self) -> None:
        """Stops the threads, and drops the images that they are decoding."""
        self._is_closing = True
        self._small.close()
        self._large.close()

    def _advance(self, work: "_Work") -> bool:
        """Runs a step of a request, in a thread; returns whether there are more."""
        try:
            self._admit(work, work.step(lambda: self._is_wanted(work)))
        except StopIteration as end:
            work.settle(end.value)
        except DecodingStoppedError:
            work.close()
            if work.is_late():
                work.settle(DeadlineExceededError("the deadline passed before the images' turn"))
        except Exception as error:  # noqa: BLE001 - raised to the caller
            work.settle(error)
        else:
            return True
        return False

    def _is_wanted(self, work: "_Work") -> bool:
        return not (self._is_closing or work.pixels.done() or work.is_late())

    def _admit(self, work: "_Work", left: int) -> None:
        """Records the remaining work of a large request; refuses it if too much waits already."""
        with self._large_lock:
            if work.pixels.done():
                return
            before = self._large_work.get(work, 0)
            if left > before and not work.wait_if_full:
                self._check_room(work, left)
            self._large_work[work] = left

    def _check_room(self, work: "_Work", left: int) -> None:
        others = {other: size for other, size in self._large_work.items() if other is not work}
        waiting = sum(others.values())
        is_waiting = any(other.caller == work.caller for other in others)
        if waiting and waiting + left > self._max_large_work // (1 + is_waiting):
            shortest, longest = _RETRY_SECONDS
            raise ResourceExhaustedError(
                f"images of {waiting:,} pixels wait to be decoded, and these have {left:,} more: "
                "try again later, or send smaller images",
                reason="DECODING_QUEUE_FULL",
                retry_after=min(max(shortest, waiting / _WORK_PER_SECOND), longest),
            )


class _Work:
    """A request in the pool.

    Attributes:
        pixels: the future of the pixels.
        steps: the steps that decode them, if there are several.
    """

    __slots__ = ("_deadline", "_read", "caller", "pixels", "steps", "wait_if_full")

    def __init__(
        self,
        read: Callable[[], Pixels | Steps],
        caller: str,
        deadline: float | None,
        *,
        wait_if_full: bool,
    ) -> None:
        self._read = read
        self._deadline = deadline
        self.caller = caller
        self.wait_if_full = wait_if_full
        self.pixels: asyncio.Future[Pixels] = asyncio.get_running_loop().create_future()
        self.steps: Steps | None = None

    def is_late(self) -> bool:
        """Whether the deadline has passed."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def step(self, is_wanted: Callable[[], bool]) -> int:
        """Runs the next step; returns the remaining work.

        Raises:
            StopIteration: no work remains; its value is the pixels.
            DecodingStoppedError: `is_wanted` returned false.
        """
        if not is_wanted():
            raise DecodingStoppedError
        if self.steps is not None:
            return self.steps.send(is_wanted)
        pixels = self._read()
        if not isinstance(pixels, Generator):
            raise StopIteration(pixels)
        self.steps = pixels
        return next(pixels)

    def close(self) -> None:
        """Drops the steps; must not be called during a step."""
        if self.steps is not None:
            self.steps.close()

    def settle(self, result: Pixels | Exception) -> None:
        """Completes the request on its event loop."""
        self.pixels.get_loop().call_soon_threadsafe(self._settle_here, result)

    def _settle_here(self, result: Pixels | Exception) -> None:
        if self.pixels.done():
            return
        if isinstance(result, Exception):
            self.pixels.set_exception(result)
        else:
            self.pixels.set_result(result)


class _Lane:
    """Threads, and the requests that wait for them.

    The next request is from the caller who has used the least thread time (start-time fair
    queueing). A new or returning caller starts at the time of the caller that is being served.
    So callers cannot save up time while they are idle.
    """

    def __init__(
        self,
        name: str,
        threads: int,
        advance: Callable[[_Work], bool],
        *,
        then: "_Lane | None" = None,
    ) -> None:
        """Starts the threads.

        Args:
            name: the name of the threads.
            threads: the number of threads.
            advance: runs a step of a request; returns whether there are more.
            then: the lane of the later steps; None for this one.
        """
        self._advance = advance
        self._then = then or self
        self._turns: SimpleQueue[bool] = SimpleQueue()  # False: stop
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[_Work]] = {}
        self._now = 0.0
        self._used: dict[str, float] = {}
        self._serving: Counter[str] = Counter()
        self._threads = [
            threading.Thread(target=self._run, name=f"leadline-{name}_{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def add(self, work: _Work) -> None:
        """Appends a request to its caller's queue, unless it is done."""
        with self._lock:
            if work.pixels.done():
                work.close()
                return
            works = self._waiting.get(work.caller)
            if works is None:
                works = self._waiting[work.caller] = deque()
                if not self._serving[work.caller]:
                    self._used[work.caller] = max(self._now, self._used.get(work.caller, 0.0))
            works.append(work)
        self._turns.put(True)

    def discard(self, work: _Work) -> None:
        """Removes a request if it waits."""
        with self._lock:
            works = self._waiting.get(work.caller)
            if works and work in works:
                works.remove(work)
                work.close()
                if not works:
                    del self._waiting[work.caller]

    def close(self) -> None:
        """Stops the threads after their current steps."""
        for _ in self._threads:
            self._turns.put(False)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while self._turns.get():
            work = self._next()
            if work is not None:
                began = time.thread_time()
                has_more = self._advance(work)
                self._charge(work.caller, time.thread_time() - began)
                if has_more:
                    self._then.add(work)
                self._finish(work.caller)

    def _next(self) -> _Work | None:
        """Removes the next request; None if it was discarded."""
        with self._lock:
            if not self._waiting:
                return None
            caller = min(self._waiting, key=self._used.__getitem__)
            works = self._waiting[caller]
            work = works.popleft()
            if not works:
                del self._waiting[caller]
            self._now = max(self._now, self._used[caller])
            self._serving[caller] += 1
            return work

    def _charge(self, caller: str, seconds: float) -> None:
        with self._lock:
            self._used[caller] = self._used.get(caller, self._now) + seconds

    def _finish(self, caller: str) -> None:
        """Records that a request of a caller is no longer being served."""
        with self._lock:
            self._serving[caller] -= 1
            if not self._serving[caller]:
                del self._serving[caller]
            if len(self._used) > _REMEMBERED:
                self._used = {
                    name: used
                    for name, used in self._used.items()
                    if used > self._now or name in self._waiting or name in self._serving
                }
