"""Merges the images of many requests into batches, off the event loop.

There is no timer: the next batch fills while the current one is computed, and an idle
batcher computes a request at once. The event loop itself computes a single image if
that takes no longer than waking a thread, and no others were in flight lately. Batches
are small, so the wait for the previous one is short. Networks take turns, and within a
network callers take turns with a few images each. So neither a large request nor a busy
caller delays the others.
"""

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol

import numpy as np

from leadline.server.errors import DeadlineExceededError, ServiceError
from leadline.server.serving.classifier import MAX_BATCH, Scores
from leadline.server.serving.inputs import InputFields, Pixels, check_finite

_QUANTUM = 8
"""Images of a caller in each turn while other callers wait."""


class Network(Protocol):
    """Computes a batch; called from one thread."""

    def score(self, images: list[Pixels]) -> Scores:
        """Classifies arrays of images, at most `MAX_BATCH` in total, in order."""


class Work:
    """A request in the batcher: its images and the scores so far.

    Attributes:
        key: the network's key: images with equal keys are computed together.
        network: returns the network.
        pixels: the images.
        caller: identifies the caller; callers take turns.
        deadline: the deadline by the monotonic clock; None without one.
        answer: the future that the caller awaits.
        quick: returns the network, if the event loop may run it: see `Batcher.submit`.
        unchecked: the fields to name if a number is not finite; None if they are checked.
        logits_only: whether nobody asks for the probabilities.
        taken: how many images were put in a batch.
        scored: how many images have scores.
        scores: the scores, complete once all images are scored.
    """

    __slots__ = (
        "answer",
        "caller",
        "deadline",
        "key",
        "logits_only",
        "network",
        "pixels",
        "quick",
        "scored",
        "scores",
        "taken",
        "unchecked",
    )

    def __init__(  # noqa: PLR0917 - called for every request: keyword arguments are slower
        self,
        key: Hashable,
        network: Callable[[], Network],
        pixels: Pixels,
        caller: str,
        deadline: float | None,
        answer: "asyncio.Future[Scores]",
        quick: Callable[[], Network | None] | None = None,
        unchecked: InputFields | None = None,
        logits_only: bool = False,
    ) -> None:
        self.key = key
        self.network = network
        self.caller = caller
        self.deadline = deadline
        self.quick = quick
        self.unchecked = unchecked
        self.logits_only = logits_only
        self.answer = answer
        self.scores: Scores | None = None
        self.pixels = pixels
        self.taken = 0
        self.scored = 0

    @property
    def left(self) -> int:
        """How many images are not yet in a batch."""
        return len(self.pixels) - self.taken

    def take(self, count: int) -> Pixels:
        """Returns the next `count` images, for a batch."""
        if not self.taken and count >= len(self.pixels):  # most requests
            images = self.pixels
        else:
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
            shape = images, part.logits.shape[1]
            probabilities = None if self.logits_only else np.empty(shape, np.float32)
            self.scores = Scores(np.empty(shape, np.float32), probabilities)
        rows = slice(self.scored, self.scored + count)
        self.scores.logits[rows] = part.logits
        if not self.logits_only:
            self.scores.probabilities[rows] = part.probabilities
        self.scored += count


class Slice(NamedTuple):
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
        callers = self._networks.get(work.key)
        if callers is None:
            callers = self._networks[work.key] = OrderedDict()
        line = callers.get(work.caller)
        if line is None:
            line = callers[work.caller] = deque()
        line.append(work)

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
        self._crowd = 0  # the most requests in flight lately: each hand-over forgets one
        # Only one thread at a time may use a network, even if the caller of a batch has left.
        self._computing = threading.Lock()
        self._arrivals: SimpleQueue[list[Work] | None] = SimpleQueue()
        self._queue: WorkQueue = WorkQueue()  # used only by the thread
        self._thread = threading.Thread(target=self._run, name="leadline-compute", daemon=True)
        self._thread.start()

    def submit(
        self,
        key: Hashable,
        network: Callable[[], Network],
        pixels: Pixels,
        *,
        caller: str,
        deadline: float | None,
        quick: Callable[[], Network | None] | None = None,
        unchecked: InputFields | None = None,
        logits_only: bool = False,
    ) -> Work:
        """Queues images for classification: await the work's `answer`, then call `finish`.

        If the answer is cancelled, the batcher stops computing the work.

        Args:
            key: the network's key; images with equal keys are computed together.
            network: returns the network; called in the thread.
            pixels: uint8 NHWC [images, 32, 32, 3], or normalised float32 NCHW
                [images, 3, 32, 32].
            caller: identifies the caller; callers take turns.
            deadline: by the monotonic clock; None without one.
            quick: returns the network, if it is loaded and computes these images in no
                more time than waking a thread takes. The event loop then runs it, unless
                other requests are in flight, or were lately.
            unchecked: the fields to name if a number is not finite; None if the pixels
                are checked.
            logits_only: whether nobody asks for the probabilities.
        """
        loop = asyncio.get_running_loop()
        if not self._arriving:
            loop.call_soon(self._hand_over)
        answer = loop.create_future()
        work = Work(key, network, pixels, caller, deadline, answer, quick, unchecked, logits_only)
        self._arriving.append(work)
        self._in_flight += 1
        return work

    def finish(self) -> None:
        """Records that a work has its answer, or that its caller has left."""
        self._in_flight -= 1

    async def result(self, work: Work) -> Scores:
        """Returns the scores of a submitted work, and finishes it.

        Raises:
            DeadlineExceededError: the deadline passed before the request was computed.
            InvalidArgumentError: a number is not finite.
            Exception: an error of `network`.
        """
        try:
            return await work.answer
        finally:
            self.finish()

    def close(self) -> None:
        """Stops the thread after the current batch; waiting requests are not computed."""
        self._arrivals.put(None)
        self._thread.join()

    def _hand_over(self) -> None:
        """Passes the arrivals of one event loop iteration to the thread, with one wake-up."""
        arrived, self._arriving = self._arriving, []
        # After a batch, the first of many new requests is alone in flight for a moment.
        self._crowd = max(self._in_flight, self._crowd - 1)
        if self._crowd != 1 or not self._is_computed_inline(arrived[0]):
            self._arrivals.put(arrived)

    def _is_computed_inline(self, work: Work) -> bool:
        """Computes an image if its network is quick and no batch is being computed."""
        network = None if work.quick is None else work.quick()
        if network is None or not self._computing.acquire(blocking=False):
            return False
        try:
            self._compute_inline(work, network)
        finally:
            self._computing.release()
        return True

    @staticmethod
    def _compute_inline(work: Work, network: Network) -> None:
        wanted = _Wanted()
        if wanted(work):
            try:
                work.scores = network.score([work.pixels])
            except Exception as error:  # noqa: BLE001 - raised to the caller
                _settle_here([work], error)
            _settle_here([work], None)
        for refused, refusal in wanted.refused:
            _settle_here([refused], refusal)

    def _run(self) -> None:
        while self._gather():
            wanted = _Wanted()
            batch = self._queue.next_batch(wanted)
            for work, error in wanted.refused:
                _settle([work], error)
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
    """Whether a request still has a caller and time, and valid pixels.

    Attributes:
        refused: the requests that have a caller, but no time or no valid pixels.
    """

    def __init__(self) -> None:
        self.refused: list[tuple[Work, ServiceError]] = []
        self._now = time.monotonic()

    def __call__(self, work: Work) -> bool:
        if work.answer.done():  # the caller has left, or has received an error
            return False
        try:
            self._check(work)
        except ServiceError as error:
            self.refused.append((work, error))
            return False
        return True

    def _check(self, work: Work) -> None:
        if work.deadline is not None and work.deadline <= self._now:
            raise DeadlineExceededError("the deadline passed while the request waited its turn")
        if work.unchecked is not None and not work.taken:
            check_finite(work.pixels, work.unchecked)


def _hand_out(batch: list[Slice], scores: Scores) -> None:
    start = 0
    for part in batch:
        end = start + len(part.images)
        part.work.keep(scores.rows(slice(start, end), logits_only=part.work.logits_only))
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
