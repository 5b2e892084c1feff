"""Merges the images of many requests into batches, off the event loop.

There is no timer: while one batch is computed the next gathers, and where
nothing is in work a request is computed at once. A batch is small enough that
nobody waits long for the one before. Within a network's images callers take turns, a
few images each, and networks take turns, so that neither a large request nor a busy
caller holds up the others.
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

_TURN = 8
"""Images of a caller in each of its turns, while others wait."""


class Network(Protocol):
    """What computes a batch; called in one thread."""

    def score(self, images: list[Pixels]) -> Scores:
        """Classifies arrays of images, together at most `MAX_BATCH`, in their order."""


@dataclass(eq=False, slots=True, kw_only=True)
class Work:
    """A request's images on their way through a network."""

    key: Hashable
    """Of the network: images of equal keys are computed together."""

    network: Callable[[], Network]
    pixels: Pixels
    caller: str
    deadline: float | None
    """By the monotonic clock; None: it has all time."""

    answer: "asyncio.Future[Scores]"
    taken: int = 0
    scored: int = 0
    scores: Scores | None = None
    """What came of it, whole once all images are scored."""

    @property
    def left(self) -> int:
        """Images that are in no batch yet."""
        return len(self.pixels) - self.taken

    def take(self, count: int) -> Pixels:
        """The next images, for a batch."""
        images = self.pixels[self.taken : self.taken + count]
        self.taken += len(images)
        return images

    def keep(self, part: Scores) -> None:
        """Takes up the scores of the next images."""
        count, images = len(part.logits), len(self.pixels)
        if count == images:
            self.scores = part
            return
        if self.scores is None:
            self.scores = Scores(
                *(
                    np.empty((images, one.shape[1]), np.float32)
                    for one in (part.logits, part.probabilities)
                )
            )
        place = slice(self.scored, self.scored + count)
        self.scores.logits[place] = part.logits
        self.scores.probabilities[place] = part.probabilities
        self.scored += count


@dataclass(frozen=True, slots=True)
class Slice:
    """Images of one request in a batch."""

    work: Work
    images: Pixels


class WorkQueue:
    """What waits to be computed: by model, by caller, each in the order of its coming."""

    def __init__(self) -> None:
        self._networks: OrderedDict[Hashable, OrderedDict[str, deque[Work]]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._networks)

    def add(self, work: Work) -> None:
        """Appends a request."""
        callers = self._networks.setdefault(work.key, OrderedDict())
        callers.setdefault(work.caller, deque()).append(work)

    def next_batch(self, is_wanted: Callable[[Work], bool]) -> list[Slice]:
        """Takes the next batch, all of one model; empty where nothing was wanted any more.

        Args:
            is_wanted: whether a request shall still be computed; asked of each
                before some of it is taken.
        """
        key, callers = self._networks.popitem(last=False)
        batch: list[Slice] = []
        room = MAX_BATCH
        while callers and room:
            caller, line = callers.popitem(last=False)
            room -= self._take_turn(
                line, room if not callers else min(room, _TURN), is_wanted, batch
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
    """A thread that computes what coroutines ask for, in batches."""

    def __init__(self) -> None:
        """Starts the thread."""
        self._arrivals: SimpleQueue[Work | None] = SimpleQueue()
        self._queue: WorkQueue = WorkQueue()  # the thread's own
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
    ) -> Scores:
        """Classifies images; those of a caller who is cancelled are computed no further.

        Args:
            key: of the network; images of equal keys are computed together.
            network: gives it, called in the thread.
            pixels: uint8 [images, 32, 32, 3], or normalised float32
                [images, 3, 32, 32].
            caller: with whom others take turns.
            deadline: by the monotonic clock; None without one.

        Raises:
            DeadlineExceededError: the deadline passed before it was computed.
            Exception: what `network` raises.
        """
        answer: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()
        self._arrivals.put(
            Work(
                key=key,
                network=network,
                pixels=pixels,
                caller=caller,
                deadline=deadline,
                answer=answer,
            )
        )
        return await answer

    def close(self) -> None:
        """Ends the thread after the batch in work; what waits is computed no more."""
        self._arrivals.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._gather():
            late: list[Work] = []
            batch = self._queue.next_batch(_Wanted(late))
            _settle(late, DeadlineExceededError("the deadline passed while it waited its turn"))
            if batch:
                self._compute(batch)

    def _gather(self) -> bool:
        """Moves what has come into the queue, waiting where there is nothing to do."""
        while True:
            try:
                work = self._arrivals.get(block=not self._queue)
            except Empty:
                return True
            if work is None:
                return False
            self._queue.add(work)

    def _compute(self, batch: list[Slice]) -> None:
        works = list(dict.fromkeys(part.work for part in batch))
        try:
            scores = works[0].network().score([part.images for part in batch])
        except Exception as error:  # noqa: BLE001 - it belongs to those who asked for it
            _settle(works, error)
            return
        _hand_out(batch, scores)
        _settle([work for work in works if not work.left])


class _Wanted:
    """Passes over requests that nobody waits for any more, and notes those that are late."""

    def __init__(self, late: list[Work]) -> None:
        self._late = late
        self._now = time.monotonic()

    def __call__(self, work: Work) -> bool:
        if work.answer.done():  # the caller is gone, or was answered with an error
            return False
        if work.deadline is not None and work.deadline <= self._now:
            self._late.append(work)
            return False
        return True


def _hand_out(batch: list[Slice], scores: Scores) -> None:
    start = 0
    for part in batch:
        end = start + len(part.images)
        part.work.keep(Scores(scores.logits[start:end], scores.probabilities[start:end]))
        start = end


def _settle(works: list[Work], error: Exception | None = None) -> None:
    """Answers requests on their event loops, all of a loop's at once."""
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
