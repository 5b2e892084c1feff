"""Runs one checkpoint's network on pixels."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from leadline.models.checkpoints import Checkpoint
from leadline.models.evaluation import BATCH_SIZE
from leadline.models.images import normalize
from leadline.server.serving.inputs import Pixels


@dataclass(frozen=True)
class Scores:
    """What a network makes of images, float32 [images, classes] each.

    Ranks are those of the logits: rounding makes ties of probabilities.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]


class Engine:
    """A checkpoint's network, in evaluation mode on its device."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self._network = checkpoint.network().to(device)
        self._device = device

    @torch.inference_mode()
    def score(self, pixels: Pixels) -> Scores:
        """Classifies images.

        Args:
            pixels: uint8 [images, 32, 32, 3], or normalised float32
                [images, 3, 32, 32].

        The batches are as large as those of the evaluation after an epoch, so
        that both round alike.
        """
        logits = torch.cat(
            [
                self._batch(pixels[start : start + BATCH_SIZE])
                for start in range(0, len(pixels), BATCH_SIZE)
            ]
        )
        return Scores(logits.cpu().numpy(), logits.softmax(dim=1).cpu().numpy())

    def _batch(self, pixels: Pixels) -> torch.Tensor:
        # torch warns of arrays that it must not write to, as received ones are.
        batch = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        batch = batch.to(self._device)
        inputs = normalize(batch) if batch.dtype == torch.uint8 else batch
        logits: torch.Tensor = self._network(inputs)
        return logits
