"""Evaluates a network on a split."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from leadline.models.batches import DeviceSplit
from leadline.models.datasets import Split
from leadline.models.engine import Engine
from leadline.models.predictions import SplitPredictions

BATCH_SIZE = 512
"""Images in a batch on a CPU: few enough for its caches."""

GPU_BATCH_SIZE = 2_000
"""Images in a batch on a GPU: divides the sizes of CIFAR-10's splits."""


@dataclass(frozen=True)
class Evaluation:
    """The loss, the accuracy and the predictions of a network on a split."""

    loss: float
    """The mean cross-entropy in nats."""

    accuracy: float
    """The fraction of correct predictions, in [0, 1]: an exact count divided by N."""

    predictions: SplitPredictions
    """The prediction of each image, with all three arrays."""


def classify(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the most probable class of each image, and two softmax probabilities.

    Args:
        logits: float32 [N, classes].
        labels: int64 [N], the true classes of the images.

    Returns:
        the class, int64 [N], its probability, float32 [N], and the probability
        of the label, float32 [N].
    """
    # The largest logit, because rounding can make probabilities equal.
    predicted = logits.argmax(dim=1)
    probabilities = logits.softmax(dim=1).gather(1, torch.stack([predicted, labels], dim=1))
    return predicted, probabilities[:, 0], probabilities[:, 1]


@torch.inference_mode()
def evaluate(
    engine: Engine,
    split: Split | DeviceSplit,
    *,
    device: torch.device,
    batch_size: int | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluates a network in evaluation mode over a whole split, in its order.

    Synchronises with the device once, at the end. A `DeviceSplit` saves the copy to
    the device. The batch size, by default the best for the device, changes the result
    only by rounding. Calls `on_batch` after each batch with the number of images done
    and the number of all images.
    """
    batches = DeviceSplit.of(split, device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    answers = []
    batch_size = batch_size or (BATCH_SIZE if device.type == "cpu" else GPU_BATCH_SIZE)
    engine.prepare()
    for start in range(0, len(batches), batch_size):
        pixels, labels = batches.slice_pixels(start, start + batch_size)
        logits = engine.logits(pixels)
        loss += functional.cross_entropy(logits, labels, reduction="sum")
        answers.append(torch.stack([part.double() for part in classify(logits, labels)]))
        if on_batch is not None:
            on_batch(min(start + batch_size, len(batches)), len(batches))
    # A single copy from the device; float64 holds classes and probabilities exactly.
    result = torch.cat([*answers, loss.expand(3, 1)], dim=1).cpu().numpy()
    predicted = result[0, :-1].astype(np.int64)
    probability, true_probability = result[1:, :-1].astype(np.float32)
    return Evaluation(
        loss=float(result[0, -1]) / len(batches),
        accuracy=int(np.count_nonzero(predicted == batches.labels)) / len(batches),
        predictions=SplitPredictions(predicted, probability, true_probability),
    )
