"""Runs a checkpoint's network on a GPU. Only servers with one load this module, and torch."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from leadline.models.checkpoints import load_checkpoint
from leadline.models.images import IMAGE_SIZE
from leadline.server.serving.engine import MAX_BATCH, Engine, Scores


class CudaEngine(Engine):
    """On a GPU, by torch, with the kernels' launches captured once for each size of batch.

    Source: "Accelerating PyTorch with CUDA Graphs", the PyTorch blog, 2021.
    """

    # A batch is filled up to the next of these.
    _SIZES = (1, 2, 4, 8, 16, 32, MAX_BATCH)

    def __init__(self, folder: Path, epoch: int, *, device: str) -> None:
        checkpoint = load_checkpoint(folder, epoch)
        super().__init__(sum(tensor.nbytes for tensor in checkpoint.weights.values()))
        self._device = torch.device(device)
        self._network = checkpoint.network().to(self._device)
        self._captured: dict[int, _CapturedPass] = {}

    @torch.inference_mode()
    def _run(self, images: NDArray[np.float32]) -> Scores:
        size = next(size for size in self._SIZES if size >= len(images))
        if size not in self._captured:
            self._captured[size] = _CapturedPass(self._network, size, self._device)
        logits = self._captured[size](images)
        return Scores(logits.numpy(), logits.softmax(dim=1).numpy())


class _CapturedPass:
    """A forward pass of so many images as one graph of the device."""

    def __init__(self, network: torch.nn.Module, size: int, device: torch.device) -> None:
        self._input = torch.zeros((size, 3, IMAGE_SIZE, IMAGE_SIZE), device=device)
        # Convolutions of less than float32's precision would not agree with the
        # evaluation after an epoch.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            self._capture(network, device)

    def _capture(self, network: torch.nn.Module, device: torch.device) -> None:
        # What is set up at the first passes must not be captured.
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(3):
                network(self._input)
        torch.cuda.current_stream(device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = network(self._input)

    def __call__(self, images: NDArray[np.float32]) -> torch.Tensor:
        # torch warns of arrays that it must not write to, as received ones are.
        self._input[: len(images)] = torch.from_numpy(np.require(images, requirements="W"))
        self._graph.replay()
        logits: torch.Tensor = self._output[: len(images)].cpu()
        return logits
