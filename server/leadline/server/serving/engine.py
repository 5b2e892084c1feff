"""Runs one checkpoint's network on pixels."""

import numpy as np
import torch
from numpy.typing import NDArray

from leadline.models.checkpoints import Checkpoint
from leadline.models.images import normalize
from leadline.server.serving.inputs import Pixels

# Images that go through the network at once: enough to fill a device, few
# enough for their activations to stay small.
_BATCH_SIZE = 1_000


class Engine:
    """A checkpoint's network, in evaluation mode on its device."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self._network = checkpoint.network().to(device)
        self._device = device

    @torch.inference_mode()
    def probabilities(self, pixels: Pixels) -> NDArray[np.float32]:
        """Classifies images.

        Args:
            pixels: uint8 [images, 32, 32, 3], or normalised float32
                [images, 3, 32, 32].

        Returns:
            Softmax probabilities, float32 [images, classes].
        """
        return np.concatenate(
            [
                self._batch(pixels[start : start + _BATCH_SIZE])
                for start in range(0, len(pixels), _BATCH_SIZE)
            ]
        )

    def _batch(self, pixels: Pixels) -> NDArray[np.float32]:
        # torch warns of arrays that it must not write to, as received ones are.
        batch = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        batch = batch.to(self._device)
        inputs = normalize(batch) if batch.dtype == torch.uint8 else batch
        logits: torch.Tensor = self._network(inputs)
        probabilities: NDArray[np.float32] = logits.softmax(dim=1).cpu().numpy()
        return probabilities
