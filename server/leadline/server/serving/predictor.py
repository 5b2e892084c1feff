"""Predictions, off the event loop and within bounds."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

from leadline.models.checkpoints import load_checkpoint
from leadline.server.errors import DeadlineExceededError, ResourceExhaustedError
from leadline.server.serving.catalog import CheckpointRef
from leadline.server.serving.engine import Engine, Scores
from leadline.server.serving.inputs import Pixels
from leadline.server.threads import Threads

T = TypeVar("T")

# Threads that decode images; decoding leaves Python's lock alone.
_DECODERS = 2


class PredictionObserver(Protocol):
    """Hears of predictions; the metrics are one."""

    def on_prediction(self, *, images: int, seconds: float) -> None:
        """A request of so many images was answered, so long after it came."""


class Predictor:
    """Answers for any checkpoint, keeping the latest used ones loaded."""

    def __init__(
        self,
        *,
        device: torch.device,
        threads: int,
        max_pending: int,
        max_loaded: int,
        observer: PredictionObserver,
    ) -> None:
        """Makes a predictor.

        Args:
            device: where networks run.
            threads: computing threads on the CPU.
            max_pending: requests in work at a time; more are refused.
            max_loaded: checkpoints kept in memory.
            observer: hears of predictions.
        """
        self._device = device
        self._max_pending = max_pending
        self._max_loaded = max_loaded
        self._observer = observer
        self._pending = 0
        # One thread computes, so the engines need no lock.
        self._computer = Threads("compute", 1, initializer=lambda: torch.set_num_threads(threads))
        self._decoders = Threads("decode", _DECODERS)
        self._engines: OrderedDict[tuple[str, str], Engine] = OrderedDict()

    async def predict(
        self,
        checkpoint: CheckpointRef,
        read: Callable[[], Pixels],
        *,
        seconds_left: float | None,
    ) -> Scores:
        """Classifies images.

        Args:
            checkpoint: what answers.
            read: makes the pixels; called in a thread.
            seconds_left: until the caller's deadline; None without one.

        Raises:
            ResourceExhaustedError: too many requests are in work.
            DeadlineExceededError: the deadline passed before the work began.
            InvalidArgumentError: from `read`.
            DataLossError: the checkpoint's file is damaged.
        """
        if self._pending >= self._max_pending:
            raise ResourceExhaustedError(
                f"{self._pending} predictions are in work, which is the limit: try again soon",
                reason="TOO_MANY_PREDICTIONS",
                retry_after=0.1,
            )
        started = time.monotonic()
        deadline = None if seconds_left is None else started + seconds_left
        self._pending += 1
        try:
            pixels = await self._decoders.run(_unless_late, deadline, read)
            scores = await self._computer.run(
                _unless_late, deadline, lambda: self._compute(checkpoint, pixels)
            )
        finally:
            self._pending -= 1
        self._observer.on_prediction(images=len(pixels), seconds=time.monotonic() - started)
        return scores

    def close(self) -> None:
        """Ends the threads after the work that has begun."""
        self._decoders.close()
        self._computer.close()

    def _compute(self, checkpoint: CheckpointRef, pixels: Pixels) -> Scores:
        return self._engine(checkpoint).score(pixels)

    def _engine(self, checkpoint: CheckpointRef) -> Engine:
        # By its hash too: a resumed job may write an epoch's checkpoint again.
        key = (checkpoint.name, checkpoint.epoch.weights_sha256)
        if key in self._engines:
            self._engines.move_to_end(key)
            return self._engines[key]
        with checkpoint.reading():
            loaded = load_checkpoint(checkpoint.folder, checkpoint.epoch.epoch)
        engine = self._engines[key] = Engine(loaded, self._device)
        if len(self._engines) > self._max_loaded:
            self._engines.popitem(last=False)
        return engine


def _unless_late(deadline: float | None, call: Callable[[], T]) -> T:
    if deadline is not None and time.monotonic() >= deadline:
        raise DeadlineExceededError("the deadline passed while the request waited its turn")
    return call()
