"""Classifies batches of images with the network of one checkpoint."""

import functools
import math
import threading
import time
from abc import ABC, abstractmethod
from typing import cast

import numpy as np
from numpy.typing import NDArray

from leadline.models.images import IMAGE_SIZE
from leadline.models.simd.inference import ExportedNetwork, Workspace
from leadline.models.simd.thread_team import ThreadTeam
from leadline.server.serving.inputs import Pixels

MAX_BATCH = 64
"""Images in a batch: about 3 ms of one core."""

_FLOAT = np.dtype(np.float32)

# Measured memory of a loaded network in addition to its weights.
_OVERHEAD_BYTES = 64 << 10


# The cost of two thread switches and of cold caches. The event loop never blocks for
# longer than that.
_QUICK_SECONDS = 150e-6
_TRIALS = 3

_OF_THREAD = threading.local()


class Scores:
    """The outputs of a network, float32 [images, classes] each.

    Classes are ranked by logits: rounding makes probabilities equal.

    Attributes:
        logits: the logits.
    """

    __slots__ = ("_probabilities", "logits")

    def __init__(
        self, logits: NDArray[np.float32], probabilities: NDArray[np.float32] | None = None
    ) -> None:
        """Makes scores; missing probabilities are computed when they are needed."""
        self.logits = logits
        self._probabilities = probabilities

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """The probabilities."""
        if self._probabilities is None:
            self._probabilities = _softmax(self.logits)
        return self._probabilities

    def rows(self, rows: slice, *, logits_only: bool) -> "Scores":
        """The scores of some images, with the probabilities of all, unless only logits matter."""
        return Scores(self.logits[rows], None if logits_only else self.probabilities[rows])


class Classifier(ABC):
    """The loaded network of a checkpoint; used by one thread at a time."""

    def __init__(self, weight_bytes: int) -> None:
        self.memory_bytes = _OVERHEAD_BYTES + weight_bytes
        """The approximate memory of the network, in bytes."""
        self.is_quick = False
        """Whether classifying one image takes less time than waking a thread."""

    def score(self, images: list[Pixels]) -> Scores:
        """Classifies a batch.

        Args:
            images: arrays of uint8 NHWC [images, 32, 32, 3] or normalised float32
                NCHW [images, 3, 32, 32], at most `MAX_BATCH` images in total.

        Returns:
            The scores of all images in order, in new arrays.
        """
        if len(images) == 1 and images[0].dtype == _FLOAT:
            return self._run(cast(NDArray[np.float32], images[0]))
        batch = _batch_of_thread()[: sum(map(len, images))]
        if all(pixels.dtype == _FLOAT for pixels in images):
            np.concatenate(images, out=batch)
            return self._run(batch)
        end = 0
        for pixels in images:
            start, end = end, end + len(pixels)
            _write_normalized(pixels, batch[start:end])
        return self._run(batch)

    @abstractmethod
    def _run(self, images: NDArray[np.float32]) -> Scores:
        """Classifies normalised NCHW images, float32 [images, 3, 32, 32]."""


def _batch_of_thread() -> NDArray[np.float32]:
    """Returns the calling thread's buffer for a batch, NCHW."""
    if not hasattr(_OF_THREAD, "batch"):
        _OF_THREAD.batch = np.empty((MAX_BATCH, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32)
    batch: NDArray[np.float32] = _OF_THREAD.batch
    return batch


def _write_normalized(pixels: Pixels, out: NDArray[np.float32]) -> None:
    """Normalises NHWC uint8 to NCHW float32, to the same bits as `batches.normalize`."""
    if pixels.dtype == _FLOAT:
        out[:] = pixels
        return
    np.divide(pixels.transpose(0, 3, 1, 2), np.float32(127.5), out=out)
    out -= np.float32(1.0)


class CpuClassifier(Classifier):
    """Classifies on the CPU, with each batch norm folded into its convolution."""

    def __init__(self, model: bytes, *, threads: int) -> None:
        super().__init__(len(model))
        self._threads = threads
        self._network = ExportedNetwork(model, _thread_team(threads))
        self.is_quick = self._seconds_of_an_image() < _QUICK_SECONDS

    def _run(self, images: NDArray[np.float32]) -> Scores:
        logits = self._network.logits(images, _workspace_of_thread(self._threads))
        return Scores(logits)

    def _seconds_of_an_image(self) -> float:
        image = np.zeros((1, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32)
        seconds = math.inf
        for _ in range(_TRIALS):
            began = time.perf_counter()
            self._run(image)
            seconds = min(seconds, time.perf_counter() - began)
        return seconds


@functools.cache
def _thread_team(threads: int) -> ThreadTeam:
    return ThreadTeam(threads)


def _workspace_of_thread(threads: int) -> Workspace:
    """Returns the calling thread's buffers for activations, shared by all networks."""
    workspace: Workspace | None = getattr(_OF_THREAD, "workspace", None)
    if workspace is None or workspace.threads < threads:
        workspace = _OF_THREAD.workspace = Workspace(largest_batch=MAX_BATCH, threads=threads)
    return workspace


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # Extreme float32 pixels may give infinite logits, whose softmax is NaN.
    with np.errstate(invalid="ignore"):
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float32] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities
