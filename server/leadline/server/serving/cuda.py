"""Runs a checkpoint's network on a GPU. Only servers with a GPU load this module and torch."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from leadline.models.checkpoints import load_checkpoint
from leadline.models.graphs import GraphedFunction, Graphs
from leadline.server.serving.classifier import MAX_BATCH, Classifier, Scores


class CudaClassifier(Classifier):
    """Classifies on a GPU through torch and CUDA graphs, one graph for each batch size.

    If a capture fails, it computes without graphs.

    Source: "Accelerating PyTorch with CUDA Graphs", the PyTorch blog, 2021.
    """

    # A batch is padded to the next of these sizes.
    _SIZES = (1, 2, 4, 8, 16, 32, MAX_BATCH)

    def __init__(
        self, folder: Path, epoch: int, *, device: str, graphs: Graphs | None = None
    ) -> None:
        """Loads a checkpoint.

        Args:
            folder: the checkpoint's folder.
            epoch: the checkpoint's epoch.
            device: torch's name of the GPU.
            graphs: see `leadline.models.graphs.GraphedFunction`.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        checkpoint = load_checkpoint(folder, epoch)
        super().__init__(sum(tensor.nbytes for tensor in checkpoint.weights.values()))
        self._device = torch.device(device)
        self._network = checkpoint.network().to(self._device)
        self._logits = GraphedFunction(
            self._evaluate, device=self._device, sizes=self._SIZES, graphs=graphs
        )

    @torch.inference_mode()
    def _run(self, images: NDArray[np.float32]) -> Scores:
        # Copies read-only arrays, such as received ones, because torch warns about them.
        batch = torch.from_numpy(np.require(images, requirements="W"))
        logits = self._logits(batch)[: len(images)].cpu()
        return Scores(logits.numpy(), logits.softmax(dim=1).numpy())

    def _evaluate(self, images: torch.Tensor) -> torch.Tensor:
        # Without TF32, whose results would differ from the evaluation after an epoch.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            logits: torch.Tensor = self._network(images)
        return logits
