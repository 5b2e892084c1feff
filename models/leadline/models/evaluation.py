"""How right a network is about a split, image by image."""

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
"""Images a batch of an evaluation on a CPU: few enough for its caches."""

GPU_BATCH_SIZE = 2_000
"""Images a batch of an evaluation on a GPU: CIFAR-10's splits are whole batches of it."""


@dataclass(frozen=True)
class Evaluation:
    """How right a network is about a split, and what it makes of every image of it."""

    loss: float
    """The mean cross-entropy in nats."""

    accuracy: float
    """The fraction that is classified rightly, in [0, 1]: an exact count over N."""

    predictions: SplitPredictions
    """What each image is taken for; its three arrays are all there."""


def classify(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the most probable class of each image, and two softmax probabilities.

    Args:
        logits: float32 [N, classes].
        labels: int64 [N], the classes that the images are of.

    Returns:
        the class, int64 [N], its probability, float32 [N], and that of the
        label, float32 [N].
    """
    # The largest logit, not the largest probability: rounding makes ties of the latter.
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

    The device is waited for once, at the end. A `DeviceSplit` saves bringing the split
    there. The size of batches, by default what suits the device, does not change the
    result, but for rounding. `on_batch` is called after each batch with the images done
    and those in all.
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
    # One copy brings all of it over; float64 holds classes and probabilities exactly.
    result = torch.cat([*answers, loss.expand(3, 1)], dim=1).cpu().numpy()
    predicted = result[0, :-1].astype(np.int64)
    probability, true_probability = result[1:, :-1].astype(np.float32)
    return Evaluation(
        loss=float(result[0, -1]) / len(batches),
        accuracy=int(np.count_nonzero(predicted == batches.labels)) / len(batches),
        predictions=SplitPredictions(predicted, probability, true_probability),
    )
