"""Merges the images of many requests into batches, off the event loop.

There is no timer: the next batch fills while the current one is computed, and an idle
batcher computes a request at once. The event loop itself computes a single image if
that takes no longer than waking a thread. Batches are small, so the wait for the
previous one is short. Networks take turns, and within a network callers take turns
with a few images each. So neither a large request nor a busy caller delays the others.
"""

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

import numpy as np

from leadline.server.errors import DeadlineExceededError
from leadline.server.serving.classifier import MAX_BATCH, Scores
from leadline.server.serving.inputs import Pixels

_QUANTUM = 8
"""Images of a caller in each turn while other callers wait."""


class Network(Protocol):
    """Computes a batch; called from one thread."""

    def score(self, images: list[Pixels]) -> Scores:
        """Classifies arrays of images, at most `MAX_BATCH` in total, in order."""


@dataclass(eq=False, slots=True, kw_only=True)
class Work:
    """A request in the batcher: its images and the scores so far."""

    key: Hashable
    """The network's key: images with equal keys are computed together."""

    network: Callable[[], Network]
    pixels: Pixels
    caller: str
    deadline: float | None
    """The deadline by the monotonic clock; None without one."""

    quick: Network | None = None
    """The network, if the event loop may run it: see `Batcher.score`."""

    answer: "asyncio.Future[Scores]"
    taken: int = 0
    scored: int = 0
    scores: Scores | None = None
    """The scores, complete once all images are scored."""

    @property
    def left(self) -> int:
        """How many images are not yet in a batch."""
        return len(self.pixels) - self.taken

    def take(self, count: int) -> Pixels:
        """Returns the next `count` images, for a batch."""
        images = self.pixels[self.taken : self.taken + count]
        self.taken += len(images)
        return images

    def keep(self, part: Scores) -> None:
        """Stores the scores of the next images."""
        count, images = len(part.logits), len(self.pixels)
        if count == images:
            self.scores = part
            return
        if self.scores is None:
            self.scores = Scores(
                *(
                    np.empty((images, scores.shape[1]), np.float32)
                    for scores in (part.logits, part.probabilities)
                )
            )
        rows = slice(self.scored, self.scored + count)
        self.scores.logits[rows] = part.logits
        self.scores.probabilities[rows] = part.probabilities
        self.scored += count


@dataclass(frozen=True, slots=True)
class Slice:
    """Images of one request in a batch."""

    work: Work
    images: Pixels


class WorkQueue:
    """Waiting requests by network, then by caller, each a FIFO queue."""

    def __init__(self) -> None:
        self._networks: OrderedDict[Hashable, OrderedDict[str, deque[Work]]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._networks)

    def add(self, work: Work) -> None:
        """Appends a request."""
        callers = self._networks.setdefault(work.key, OrderedDict())
        callers.setdefault(work.caller, deque()).append(work)

    def next_batch(self, is_wanted: Callable[[Work], bool]) -> list[Slice]:
        """Removes the next batch, all of one network; empty if no request needs computing.

        Args:
            is_wanted: whether to compute a request; called before each time that its
                images are taken.
        """
        key, callers = self._networks.popitem(last=False)
        batch: list[Slice] = []
        room = MAX_BATCH
        while callers and room:
            caller, line = callers.popitem(last=False)
            room -= self._take_turn(
                line, room if not callers else min(room, _QUANTUM), is_wanted, batch
            )
            if line:
                callers[caller] = line
        if callers:
            self._networks[key] = callers
        return batch

    @staticmethod
    def _take_turn(
        line: deque[Work], most: int, is_wanted: Callable[[Work], bool], batch: list[Slice]
    ) -> int:
        taken = 0
        while line and taken < most:
            work = line[0]
            if not is_wanted(work):
                line.popleft()
                continue
            images = work.take(most - taken)
            batch.append(Slice(work, images))
            taken += len(images)
            if not work.left:
                line.popleft()
        return taken


class Batcher:
    """A thread that classifies images from coroutines in batches."""

    def __init__(self) -> None:
        """Starts the thread."""
        self._arriving: list[Work] = []  # in this iteration of the event loop
        self._in_flight = 0
        # Only one thread at a time may use a network, even if the caller of a batch has left.
        self._computing = threading.Lock()
        self._arrivals: SimpleQueue[list[Work] | None] = SimpleQueue()
        self._queue: WorkQueue = WorkQueue()  # used only by the thread
        self._thread = threading.Thread(target=self._run, name="leadline-compute", daemon=True)
        self._thread.start()

    async def score(
        self,
        key: Hashable,
        network: Callable[[], Network],
        pixels: Pixels,
        *,
        caller: str,
        deadline: float | None,
        quick: Network | None = None,
    ) -> Scores:
        """Classifies images; stops computing a cancelled request.

        Args:
            key: the network's key; images with equal keys are computed together.
            network: returns the network; called in the thread.
            pixels: uint8 NHWC [images, 32, 32, 3], or normalised float32 NCHW
                [images, 3, 32, 32].
            caller: identifies the caller; callers take turns.
            deadline: by the monotonic clock; None without one.
            quick: the network, if it is loaded and computes these images in no more
                time than waking a thread takes. The event loop then runs it, unless
                other requests are in flight.

        Raises:
            DeadlineExceededError: the deadline passed before the request was computed.
            Exception: an error of `network`.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Scores] = loop.create_future()
        if not self._arriving:
            loop.call_soon(self._hand_over)
        self._arriving.append(
            Work(
                key=key,
                network=network,
                pixels=pixels,
                caller=caller,
                deadline=deadline,
                quick=quick,
                answer=answer,
            )
        )
        self._in_flight += 1
        try:
            return await answer
        finally:
            self._in_flight -= 1

    def close(self) -> None:
        """Stops the thread after the current batch; waiting requests are not computed."""
        self._arrivals.put(None)
        self._thread.join()

    def _hand_over(self) -> None:
        """Passes the arrivals of one event loop iteration to the thread, with one wake-up."""
        arrived, self._arriving = self._arriving, []
        quick = arrived[0].quick
        if self._in_flight == 1 and quick is not None and self._computing.acquire(blocking=False):
            try:
                self._compute_inline(arrived[0], quick)
            finally:
                self._computing.release()
        else:
            self._arrivals.put(arrived)

    @staticmethod
    def _compute_inline(work: Work, network: Network) -> None:
        late: list[Work] = []
        if _Wanted(late)(work):
            try:
                work.scores = network.score([work.pixels])
            except Exception as error:  # noqa: BLE001 - raised to the caller
                _settle_here([work], error)
            _settle_here([work], None)
        _settle_here(late, _too_late())

    def _run(self) -> None:
        while self._gather():
            late: list[Work] = []
            batch = self._queue.next_batch(_Wanted(late))
            _settle(late, _too_late())
            if batch:
                self._compute(batch)

    def _gather(self) -> bool:
        """Moves arrivals to the queue; waits if it is empty. Returns False to stop."""
        while True:
            try:
                arrived = self._arrivals.get(block=not self._queue)
            except Empty:
                return True
            if arrived is None:
                return False
            for work in arrived:
                self._queue.add(work)

    def _compute(self, batch: list[Slice]) -> None:
        works = list(dict.fromkeys(part.work for part in batch))
        try:
            with self._computing:
                scores = works[0].network().score([part.images for part in batch])
        except Exception as error:  # noqa: BLE001 - raised to the callers
            _settle(works, error)
            return
        _hand_out(batch, scores)
        _settle([work for work in works if not work.left])


class _Wanted:
    """Whether a request still has a caller and time; collects those past their deadline."""

    def __init__(self, late: list[Work]) -> None:
        self._late = late
        self._now = time.monotonic()

    def __call__(self, work: Work) -> bool:
        if work.answer.done():  # the caller has left, or has received an error
            return False
        if work.deadline is not None and work.deadline <= self._now:
            self._late.append(work)
            return False
        return True


def _too_late() -> DeadlineExceededError:
    return DeadlineExceededError("the deadline passed while the request waited its turn")


def _hand_out(batch: list[Slice], scores: Scores) -> None:
    start = 0
    for part in batch:
        end = start + len(part.images)
        part.work.keep(Scores(scores.logits[start:end], scores.probabilities[start:end]))
        start = end


def _settle(works: list[Work], error: Exception | None = None) -> None:
    """Completes requests on their event loops, with one wake-up for each loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Work]] = {}
    for work in works:
        by_loop.setdefault(work.answer.get_loop(), []).append(work)
    for loop, its_works in by_loop.items():
        loop.call_soon_threadsafe(_settle_here, its_works, error)


def _settle_here(works: list[Work], error: Exception | None) -> None:
    for work in works:
        if work.answer.done():
            continue
        if error is not None:
            work.answer.set_exception(error)
        elif work.scores is not None:
            work.answer.set_result(work.scores)
