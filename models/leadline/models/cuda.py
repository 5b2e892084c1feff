"""Training and evaluation on a GPU by captured graphs.

A network this small runs a hundred short kernels a step. Launching them one by
one takes longer than running them. A replay launches all of them at once.
"""

import torch
from torch import Tensor
from torch.nn import functional

from leadline.models.batches import normalize
from leadline.models.graphs import GraphedFunction, Graphs
from leadline.models.network import BlockNetwork


class CudaEngine:
    """Computes on a GPU.

    Captures a graph for each batch size; only the last batch of an epoch has another
    size. Computes without graphs if a capture fails. The network's GPU becomes the
    process's current device, and training steps compute in `autocast`.
    """

    name = "cuda"

    def __init__(
        self,
        network: BlockNetwork,
        autocast: torch.dtype | None = None,
        *,
        graphs: Graphs | None = None,
    ) -> None:
        device = next(network.parameters()).device
        if device.type == "cuda":
            torch.cuda.set_device(device)
        self._network = network
        self._autocast = autocast
        # The steps before a capture must not change the running statistics.
        self._graphed_step = GraphedFunction(
            self._step, device=device, state=network.buffers, graphs=graphs
        )
        self._graphed_evaluation = GraphedFunction(self._evaluate, device=device, graphs=graphs)

    def gradients(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """See `leadline.models.engine.Engine.gradients`."""
        # The next step overwrites the loss.
        return self._graphed_step(pixels, labels).clone()

    def prepare(self) -> None:
        """Does nothing: captured evaluations read the parameters in place."""

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """See `leadline.models.engine.Engine.logits`."""
        return self._graphed_evaluation(pixels).clone()

    def _step(self, pixels: Tensor, labels: Tensor) -> Tensor:
        self._network.train()
        parameters = list(self._network.parameters())
        kind = self._autocast
        with torch.autocast(
            pixels.device.type, kind, enabled=kind is not None, cache_enabled=False
        ):
            logits = self._network(normalize(pixels))
        loss = functional.cross_entropy(logits.float(), labels)
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            # The graphs of all batch sizes write to the same gradient, which optimizers read.
            if parameter.grad is None:
                parameter.grad = gradient.clone()
            else:
                parameter.grad.copy_(gradient)
        return loss.detach()

    def _evaluate(self, pixels: Tensor) -> Tensor:
        self._network.eval()
        try:
            logits: Tensor = self._network(normalize(pixels))
        finally:
            self._network.train()
        return logits
