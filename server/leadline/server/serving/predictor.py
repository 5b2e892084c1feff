"""Predictions: admission control, decoding, and batched classification."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

import numpy as np

from leadline.server.errors import ResourceExhaustedError
from leadline.server.serving.batcher import Batcher, Work
from leadline.server.serving.catalog import CheckpointRef
from leadline.server.serving.classifier import Scores
from leadline.server.serving.decoding import DecoderPool
from leadline.server.serving.inputs import InputFields, Pixels, Steps
from leadline.server.serving.loaded import LoadedNetworks

_RETRY_SECONDS = 0.1

# One image, to check the computing thread.
_NO_PIXELS = np.zeros((1, 32, 32, 3), np.uint8)


class PredictionObserver(Protocol):
    """Observes predictions; the metrics implement it."""

    def on_prediction(self, *, images: int, seconds: float) -> None:
        """A request was answered, `seconds` after its arrival."""


class AdmissionLimiter:
    """Bounds the requests in flight; used by one event loop."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def in_flight(self) -> int:
        """How many requests are in flight."""
        return self._in_flight

    def try_acquire(self) -> bool:
        """Acquires a slot if one is free, which `release` frees; returns whether it did."""
        is_free = self._in_flight < self._count
        self._in_flight += is_free
        return is_free

    async def acquire(self, *, wait: bool) -> None:
        """Acquires a slot, which `release` frees.

        Args:
            wait: whether to wait for a slot, first come, first served.

        Raises:
            ResourceExhaustedError: no slot is free, and `wait` is false.
        """
        if self.try_acquire():
            return
        if wait:
            await self._wait()
        else:
            raise ResourceExhaustedError(
                f"{self._in_flight} predictions are in flight, which is the limit: try again soon",
                reason="TOO_MANY_PREDICTIONS",
                retry_after=_RETRY_SECONDS,
            )

    def release(self) -> None:
        """Passes the slot to the next waiter, or frees it."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._in_flight -= 1

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release()  # it had just received the slot
            raise


class Predictor:
    """Classifies images with any checkpoint."""

    def __init__(
        self,
        *,
        device: str,
        threads: int,
        max_pending: int,
        max_loaded_bytes: int,
        decoders: DecoderPool,
        observer: PredictionObserver,
    ) -> None:
        """Makes a predictor.

        Args:
            device: the device of the networks, "cpu" or torch's name of a GPU.
            threads: computing threads on the CPU.
            max_pending: the most requests in flight; more are refused.
            max_loaded_bytes: the size of the cache of loaded networks, in bytes.
            decoders: threads that decode images; closed with the predictor.
            observer: is notified of predictions.
        """
        self._observer = observer
        self._admission = AdmissionLimiter(max_pending)
        self._decoders = decoders
        self.loaded = LoadedNetworks(device=device, threads=threads, max_bytes=max_loaded_bytes)
        self._batcher = Batcher()

    @property
    def pending(self) -> int:
        """How many predictions are pending."""
        return self._admission.in_flight

    async def predict(
        self,
        checkpoint: CheckpointRef,
        read: Callable[[], Pixels | Steps],
        *,
        seconds_left: float | None,
        caller: str = "",
        run_inline: bool = False,
        wait_if_full: bool = False,
    ) -> Scores:
        """Classifies images.

        Args:
            checkpoint: the network's checkpoint.
            read: returns the pixels, or steps that decode them.
            seconds_left: until the caller's deadline; None without one.
            caller: identifies the caller; callers take turns.
            run_inline: whether to call `read` on the event loop, because it takes only
                microseconds, instead of in a thread.
            wait_if_full: whether to wait if too many requests are in flight; for
                streams, whose callers then experience backpressure.

        Raises:
            ResourceExhaustedError: too many requests are in flight, or too many images wait
                to be decoded.
            DeadlineExceededError: the deadline passed before the work ended.
            InvalidArgumentError: from `read`.
            DataLossError: the checkpoint's file is damaged.
        """
        began = time.monotonic()
        deadline = None if seconds_left is None else began + seconds_left
        await self._admission.acquire(wait=wait_if_full)
        try:
            if run_inline:
                pixels = cast("Pixels", read())
            else:
                pixels = await self._decoders.run(
                    read, caller=caller, deadline=deadline, wait_if_full=wait_if_full
                )
            work = self._submit(checkpoint, pixels, caller, deadline)
        except BaseException:
            self._admission.release()
            raise
        scores = None
        try:
            scores = await work.answer
        finally:
            self.end(work, scores, time.monotonic() - began)
        return scores

    def start(
        self,
        checkpoint: CheckpointRef,
        pixels: Pixels,
        *,
        seconds_left: float | None,
        caller: str,
        unchecked: InputFields | None,
        logits_only: bool,
    ) -> Work | None:
        """Starts to classify images; returns None if too many requests are in flight.

        Args:
            checkpoint: the network's checkpoint.
            pixels: the images.
            seconds_left: the time until the caller's deadline; None without one.
            caller: identifies the caller; callers take turns.
            unchecked: the fields to name if a number is not finite; None if they are checked.
            logits_only: whether nobody asks for the probabilities.

        Returns:
            The work, whose `answer` raises the errors of `predict`. Then call `end`.
        """
        if not self._admission.try_acquire():
            return None
        deadline = None if seconds_left is None else time.monotonic() + seconds_left
        return self._submit(
            checkpoint, pixels, caller, deadline, unchecked=unchecked, logits_only=logits_only
        )

    def end(self, work: Work, scores: Scores | None, seconds: float) -> None:
        """Ends a started request, and releases its slot.

        Args:
            work: the request.
            scores: its answer; None if it has failed, or its caller has left.
            seconds: the time since its arrival.
        """
        self._batcher.finish()
        self._admission.release()
        if scores is not None:
            self._observer.on_prediction(images=len(work.pixels), seconds=seconds)

    def _submit(
        self,
        checkpoint: CheckpointRef,
        pixels: Pixels,
        caller: str,
        deadline: float | None,
        *,
        unchecked: InputFields | None = None,
        logits_only: bool = False,
    ) -> Work:
        return self._batcher.submit(
            checkpoint.key,
            partial(self.loaded.get, checkpoint),
            pixels,
            caller=caller,
            deadline=deadline,
            quick=partial(self.loaded.quick, checkpoint) if len(pixels) == 1 else None,
            unchecked=unchecked,
            logits_only=logits_only,
        )

    async def check(self) -> None:
        """Returns when the computing thread has answered; waits behind pending predictions."""
        work = self._batcher.submit("check", _Idle, _NO_PIXELS, caller="check", deadline=None)
        await self._batcher.result(work)

    def close(self) -> None:
        """Stops the threads after the work that has started."""
        self._decoders.close()
        self._batcher.close()


class _Idle:
    """A network that computes nothing."""

    def score(self, images: list[Pixels]) -> Scores:
        """Zeros."""
        nothing = np.zeros((sum(map(len, images)), 1), np.float32)
        return Scores(nothing)
