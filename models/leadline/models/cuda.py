"""Training and evaluation on a GPU, by graphs that are captured once and replayed.

A network this small is a hundred short kernels a step: to launch them one by
one takes longer than to run them. A replay launches all of them at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from leadline.models.batches import normalize
from leadline.models.network import BlockNetwork

__all__ = ["CudaEngine"]

# As many as PyTorch's notes on graphs advise before a capture.
_WARM_UPS = 3


@dataclass(frozen=True)
class _Captured:
    """A graph, where what it reads lies, and where its result does."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    result: Tensor

    def replay(self, *inputs: Tensor) -> Tensor:
        """Runs the graph; the result is overwritten by the next replay."""
        for place, value in zip(self.inputs, inputs, strict=True):
            place.copy_(value)
        self.graph.replay()
        return self.result


class CudaEngine:
    """Computes on a GPU.

    A graph is captured for each size of batch; those of an epoch are all of one
    size but the last.

    Source: the PyTorch notes on CUDA graphs.

    Args:
        network: on the GPU, which becomes the process's current one.
        autocast: the type in which a training step computes; float32 without.
    """

    def __init__(self, network: BlockNetwork, autocast: torch.dtype | None = None) -> None:
        torch.cuda.set_device(next(network.parameters()).device)
        self._network = network
        self._autocast = autocast
        self._steps: dict[int, _Captured] = {}
        self._evaluations: dict[int, _Captured] = {}

    def gradients(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """See `leadline.models.engine.Engine.gradients`."""
        captured = self._steps.get(len(pixels))
        if captured is None:
            captured = self._capture_step(pixels, labels)
            self._steps[len(pixels)] = captured
        # The loss lies where the next step puts its own.
        return captured.replay(pixels, labels).clone()

    def prepare(self) -> None:
        """Captured evaluations read the parameters where they are: there is nothing to do."""

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """See `leadline.models.engine.Engine.logits`."""
        captured = self._evaluations.get(len(pixels))
        if captured is None:
            captured = self._capture_evaluation(pixels)
            self._evaluations[len(pixels)] = captured
        return captured.replay(pixels).clone()

    def _capture_step(self, pixels: Tensor, labels: Tensor) -> _Captured:
        # The warm-up's steps must leave no trace in the running statistics.
        kept = {name: value.clone() for name, value in self._network.named_buffers()}
        parameters = list(self._network.parameters())

        def step(pixels: Tensor, labels: Tensor) -> Tensor:
            kind = self._autocast
            with torch.autocast("cuda", kind, enabled=kind is not None, cache_enabled=False):
                logits = self._network(normalize(pixels))
            loss = functional.cross_entropy(logits.float(), labels)
            found = torch.autograd.grad(loss, parameters)
            for parameter, gradient in zip(parameters, found, strict=True):
                # All sizes of batches write to one place, which optimizers know.
                if parameter.grad is None:
                    parameter.grad = gradient.clone()
                else:
                    parameter.grad.copy_(gradient)
            return loss.detach()

        self._network.train()
        captured = _capture(step, pixels, labels)
        with torch.no_grad():
            for name, value in self._network.named_buffers():
                value.copy_(kept[name])
        return captured

    def _capture_evaluation(self, pixels: Tensor) -> _Captured:
        def evaluate(pixels: Tensor) -> Tensor:
            logits: Tensor = self._network(normalize(pixels))
            return logits

        self._network.eval()
        try:
            return _capture(evaluate, pixels)
        finally:
            self._network.train()


def _capture(function: Callable[..., Tensor], *examples: Tensor) -> _Captured:
    inputs = tuple(example.clone() for example in examples)
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call,unused-ignore]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UPS):
            function(*inputs)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(*inputs)
    return _Captured(graph, inputs, result)
