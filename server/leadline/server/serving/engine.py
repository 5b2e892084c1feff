"""Runs one checkpoint's network on pixels, as fast as its device can."""

import functools
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import cast

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from leadline.models.checkpoints import Checkpoint
from leadline.models.export import INPUT, LOGITS, PROBABILITIES, to_onnx
from leadline.models.images import IMAGE_SIZE
from leadline.server.serving.inputs import Pixels

MAX_BATCH = 32
"""Images in a batch: as many as still make a network faster, some 3 ms of one core."""

# What a loaded network of 10 blocks was measured to take beside its weights.
_SESSION_BYTES = 640 << 10


_OF_THREAD = threading.local()


@dataclass(frozen=True, slots=True)
class Scores:
    """What a network makes of images, float32 [images, classes] each.

    Ranks are those of the logits: rounding makes ties of probabilities.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]


class Engine(ABC):
    """A checkpoint's network, ready to classify; used by one thread at a time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.memory_bytes = _SESSION_BYTES + sum(
            tensor.nbytes for tensor in checkpoint.weights.values()
        )
        """About what it takes up, in bytes."""

    def score(self, images: list[Pixels]) -> Scores:
        """Classifies a batch.

        Args:
            images: arrays of uint8 [images, 32, 32, 3] or normalised float32
                [images, 3, 32, 32], together at most `MAX_BATCH` images.

        Returns:
            The scores of all in their order, in arrays of their own.
        """
        if len(images) == 1 and images[0].dtype == np.float32:
            return self._run(cast(NDArray[np.float32], images[0]))
        batch, end = _batch_of_thread(), 0
        for pixels in images:
            start, end = end, end + len(pixels)
            _write_normalized(pixels, batch[start:end])
        return self._run(batch[:end])

    @abstractmethod
    def _run(self, images: NDArray[np.float32]) -> Scores:
        """Classifies normalised images, [images, 3, 32, 32]."""


def _batch_of_thread() -> NDArray[np.float32]:
    """Where the thread that calls puts a batch together."""
    if not hasattr(_OF_THREAD, "batch"):
        _OF_THREAD.batch = np.empty((MAX_BATCH, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32)
    batch: NDArray[np.float32] = _OF_THREAD.batch
    return batch


def _write_normalized(pixels: Pixels, out: NDArray[np.float32]) -> None:
    """Writes as float32 what `leadline.models.images.normalize` makes of pixels, bit for bit."""
    if pixels.dtype == np.float32:
        out[:] = pixels
        return
    np.divide(pixels.transpose(0, 3, 1, 2), np.float32(127.5), out=out)
    out -= np.float32(1.0)


class OnnxEngine(Engine):
    """On the CPU, by ONNX Runtime, with each batch norm folded into its convolution."""

    def __init__(self, checkpoint: Checkpoint, *, threads: int) -> None:
        super().__init__(checkpoint)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Else each network would keep some 3 MB for what is between its layers.
        _share_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
        # Threads that spin while they wait would take the trainers' time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            to_onnx(checkpoint.network()), options, providers=["CPUExecutionProvider"]
        )

    def _run(self, images: NDArray[np.float32]) -> Scores:
        return Scores(*self._session.run([LOGITS, PROBABILITIES], {INPUT: images}))


@functools.cache
def _share_memory() -> None:
    """Makes an arena from which all networks of the process take what they need in between."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(memory, None)


class CudaEngine(Engine):
    """On a GPU, by torch, with the kernels' launches captured once for each size of batch.

    Source: "Accelerating PyTorch with CUDA Graphs", the PyTorch blog, 2021.
    """

    # A batch is filled up to the next of these.
    _SIZES = (1, 2, 4, 8, 16, MAX_BATCH)

    def __init__(self, checkpoint: Checkpoint, *, device: torch.device) -> None:
        super().__init__(checkpoint)
        self._network = checkpoint.network().to(device)
        self._device = device
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


def make_engine(checkpoint: Checkpoint, *, device: torch.device, threads: int) -> Engine:
    """The engine of a device; `threads` compute where it is the CPU."""
    if device.type == "cpu":
        return OnnxEngine(checkpoint, threads=threads)
    return CudaEngine(checkpoint, device=device)
