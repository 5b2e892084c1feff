"""The engines that compute the gradients of a training step and the logits of an evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from leadline.models.batches import normalize
from leadline.models.cuda import CudaEngine
from leadline.models.network import BlockNetwork
from leadline.models.simd.engine_choice import EngineChoice, engine_choice
from leadline.models.simd.instruction_set import InstructionSet, instruction_set
from leadline.models.simd.stack import InferenceStack, TrainingStack
from leadline.models.simd.thread_team import ThreadTeam

# The operators of autograd's backward pass.
_log_softmax_backward = torch.ops.aten._log_softmax_backward_data  # noqa: SLF001
_relu_backward = torch.ops.aten.threshold_backward


class Engine(Protocol):
    """Computes for one network."""

    @property
    def name(self) -> str:
        """The engine's name in checkpoints: "simd", "torch" or "cuda"."""

    def gradients(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Sets the gradient of every parameter, and returns the batch's mean loss.

        Batch norms use the batch's statistics and update their running statistics.

        Args:
            pixels: uint8 [n, 32, 32, 3].
            labels: int64 [n].

        Returns:
            The mean cross-entropy in nats, a scalar on the device.
        """

    def prepare(self) -> None:
        """Reads the network's current parameters for later calls of `logits`."""

    def logits(self, pixels: Tensor) -> Tensor:
        """Returns the logits, float32 [n, classes], in evaluation mode.

        Args:
            pixels: uint8 [n, 32, 32, 3].
        """


def engine_for(
    network: BlockNetwork,
    *,
    device: torch.device,
    in_bfloat16: bool,
    largest_batch: int,
    threads: int,
) -> Engine:
    """Returns the fastest engine, or torch's if `LEADLINE_ENGINE` selects it for the CPU.

    Sets the number of torch's threads, for the whole process.

    Raises:
        UnknownEngineError: `LEADLINE_ENGINE` names no engine.
        UnsupportedNetworkError: the vector engine has no kernels for the network's shapes.
    """
    is_vectorized = engine_choice() is EngineChoice.AUTO and not in_bfloat16
    if device.type == "cpu" and is_vectorized:
        return SimdEngine(network, largest_batch=largest_batch, threads=threads)
    torch.set_num_threads(threads)
    autocast = torch.bfloat16 if in_bfloat16 else None
    return (
        CudaEngine(network, autocast) if device.type == "cuda" else TorchEngine(network, autocast)
    )


class TorchEngine:
    """Computes with torch's own operations, on any device; training steps in `autocast`."""

    name = "torch"

    def __init__(self, network: nn.Module, autocast: torch.dtype | None = None) -> None:
        self._network = network
        self._autocast = autocast

    def gradients(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """See `Engine.gradients`."""
        self._network.train()
        kind = self._autocast
        with torch.autocast(pixels.device.type, kind, enabled=kind is not None):
            logits = self._network(normalize(pixels))
        loss = functional.cross_entropy(logits.float(), labels)
        self._network.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
        return loss.detach()

    def prepare(self) -> None:
        """See `Engine.prepare`: `logits` reads the parameters themselves."""

    @torch.inference_mode()
    def logits(self, pixels: Tensor) -> Tensor:
        """See `Engine.logits`."""
        with _evaluation_mode(self._network):
            logits: Tensor = self._network(normalize(pixels))
        return logits


class SimdEngine:
    """Computes with the vector units of a CPU: see `leadline.models.simd`.

    Several times as fast as torch's operations, which are optimised for many more
    channels. The result equals torch's except for rounding, and is the same, to the
    bit, with any number of threads.

    Sets torch's number of threads to one, for the whole process. The network must be
    in main memory, in float32.

    Raises:
        UnsupportedNetworkError: there are no kernels for the network's shapes.
    """

    name = "simd"

    def __init__(
        self,
        network: BlockNetwork,
        *,
        largest_batch: int,
        threads: int,
        isa: InstructionSet | None = None,
    ) -> None:
        isa = isa or instruction_set()
        torch.set_num_threads(1)
        self._classifier = network.classifier
        self._hidden, self._output = (
            layer for layer in network.classifier if isinstance(layer, nn.Linear)
        )
        team = ThreadTeam(threads)
        self._training = TrainingStack(network, largest_batch, team, isa)
        self._inference = InferenceStack(network, team, isa)

    def gradients(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """See `Engine.gradients`."""
        features = self._training.forward(pixels)
        loss, grad_features = self._classifier_gradients(features, labels)
        self._training.backward(grad_features)
        return loss

    @torch.no_grad()
    def _classifier_gradients(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sets the classifier's gradients; returns the mean loss and the features' gradient.

        The operations are autograd's, and give the same bits. For layers this small, recording
        them takes longer than computing them.
        """
        hidden, output = self._hidden, self._output
        activations = functional.linear(features, hidden.weight, hidden.bias).relu_()
        log_softmax = functional.log_softmax(functional.linear(activations, output.weight), 1)
        loss = functional.nll_loss(log_softmax, labels)
        grad_loss = torch.zeros_like(log_softmax).scatter_(1, labels[:, None], -1 / len(labels))
        grad_logits = _log_softmax_backward(grad_loss, log_softmax, 1, torch.float32)
        grad_hidden = _relu_backward(grad_logits @ output.weight, activations, 0)
        output.weight.grad = grad_logits.t() @ activations
        hidden.weight.grad = grad_hidden.t() @ features
        hidden.bias.grad = grad_hidden.sum(0)
        return loss, grad_hidden @ hidden.weight

    def prepare(self) -> None:
        """See `Engine.prepare`."""
        self._inference.load(self._training.parameters)

    @torch.inference_mode()
    def logits(self, pixels: Tensor) -> Tensor:
        """See `Engine.logits`."""
        logits: Tensor = self._classifier(self._inference(pixels))
        return logits


@contextmanager
def _evaluation_mode(network: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
