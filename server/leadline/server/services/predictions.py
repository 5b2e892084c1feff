"""The use cases of predictions: classify images, load and unload networks."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from leadline.server.access.meter import UsageMeter
from leadline.server.identity import Identity
from leadline.server.serving.catalog import CheckpointRef
from leadline.server.serving.classifier import Scores
from leadline.server.serving.examples import ExampleRef, read_examples
from leadline.server.serving.inputs import InputLimits, Pixels, Steps
from leadline.server.serving.predictor import Predictor
from leadline.server.thread_pool import ThreadPool


class ImageInput(NamedTuple):
    """The images of a request, before they are decoded.

    Attributes:
        images: how many there are, by the request.
        decode: returns the pixels, or steps that decode them; raises InvalidArgumentError if
            the images are invalid.
        run_inline: whether `decode` takes only microseconds, less than a switch of threads.
    """

    images: int
    decode: Callable[[], Pixels | Steps]
    run_inline: bool = False


class PredictionService:
    """The use cases of predictions.

    Attributes:
        limits: the limits of a request.
    """

    def __init__(
        self,
        *,
        predictor: Predictor,
        threads: ThreadPool,
        limits: InputLimits,
        dataset_cache: Path,
        meter: UsageMeter,
    ) -> None:
        """Makes a service; `threads` load networks on request, `meter` counts predictions."""
        self._predictor = predictor
        self._threads = threads
        self._dataset_cache = dataset_cache
        self._meter = meter
        self.limits = limits
        self._start = predictor.start

    def example_input(self, examples: Sequence[ExampleRef]) -> ImageInput:
        """The input of dataset images; `decode` raises if an image is not on this server."""
        return ImageInput(len(examples), partial(read_examples, examples, self._dataset_cache))

    def predict(
        self,
        checkpoint: CheckpointRef,
        images: ImageInput,
        *,
        identity: Identity,
        caller: str,
        seconds_left: float | None,
        wait_if_full: bool,
    ) -> Coroutine[Any, Any, Scores]:
        """Classifies images.

        Args:
            checkpoint: the network's checkpoint.
            images: the images to classify.
            identity: whose quota of predictions they count against.
            caller: identifies the caller; callers take turns.
            seconds_left: until the caller's deadline; None without one.
            wait_if_full: whether to wait if too many requests are in flight, or the quota is
                used up.

        Raises:
            InvalidArgumentError: the images are invalid.
            ResourceExhaustedError: too many requests are in flight, or the quota is used up, and
                `wait_if_full` is false.
            DeadlineExceededError: the deadline passed before the work began.
            DataLossError: the checkpoint's file is damaged.
        """
        # Returned, not awaited, to save a coroutine for every prediction.
        predict = partial(
            self._predictor.predict,
            checkpoint,
            images.decode,
            seconds_left=seconds_left,
            caller=caller,
            run_inline=images.run_inline,
            wait_if_full=wait_if_full,
        )
        if wait_if_full and self._meter.is_limited(identity):
            return self._predict_when_allowed(identity, images.images, predict)
        self._meter.predict(identity, images.images)
        return predict()

    async def _predict_when_allowed(
        self, identity: Identity, images: int, predict: Callable[[], Coroutine[Any, Any, Scores]]
    ) -> Scores:
        await self._meter.predict_when_allowed(identity, images)
        return await predict()

    def start(
        self,
        checkpoint: CheckpointRef,
        pixels: Pixels,
        *,
        identity: Identity,
        caller: str,
        seconds_left: float | None,
    ) -> Awaitable[Scores] | None:
        """Starts to classify pixels as `Predictor.start` does; None if a quota forbids it."""
        if self._meter.is_limited(identity):
            return None  # the general path counts the images
        return self._start(checkpoint, pixels, caller=caller, seconds_left=seconds_left)

    async def load(self, checkpoint: CheckpointRef) -> None:
        """Loads the network of a checkpoint into memory.

        Raises:
            DataLossError: the checkpoint's file is damaged.
        """
        await self._threads.run(self._predictor.loaded.get, checkpoint)

    def unload(self, checkpoint: CheckpointRef) -> None:
        """Drops the networks of all epochs of a checkpoint's model from memory."""
        for epoch in checkpoint.model.epochs:
            self._predictor.loaded.drop(replace(checkpoint, epoch=epoch.result))
