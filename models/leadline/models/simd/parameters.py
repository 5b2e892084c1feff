"""The parameters of a network's convolutions and batch norms, as the passes take them."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from leadline.models.network import BlockNetwork
from leadline.models.simd.elementwise import CHANNELS, EPSILON
from leadline.models.simd.tensors import TensorFrame

MOMENTUM = 0.1
"""The share of a batch in a batch norm's running statistics: PyTorch's default."""


class StackParameters:
    """The parameters outside of the classifier, those of equal layers as one tensor.

    A step deals with all layers in the blocks at once, not with one after the
    other: each parameter of a module becomes a part of a common tensor.

    Args:
        network: in main memory; its modules keep their parameters and buffers,
            which only move.
    """

    def __init__(self, network: BlockNetwork) -> None:
        modules = list(network.blocks.modules())
        norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
        convolutions = [module for module in modules if isinstance(module, nn.Conv2d)]
        self._owners: list[tuple[nn.Parameter, Tensor]] = []
        self._values: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        """By the fields' names; in the modules' shapes, for equal layers with [layers] before."""
        for name, path in (("widen", "head.widen"), ("halve", "head.halve"), ("tail", "tail")):
            self._hold(f"{name}_weights", network.get_parameter(f"{path}.weight"))
            self._hold(f"{name}_biases", network.get_parameter(f"{path}.bias"))
        for field, name in (("weights", "weight"), ("biases", "bias")):
            self._hold_all(f"inner_{field}", [one.get_parameter(name) for one in convolutions])
            self._hold_all(f"norm_{field}", [one.get_parameter(name) for one in norms])
        self._means = _gather(module.running_mean for module in norms)
        self._variances = _gather(module.running_var for module in norms)
        self._batches = _gather(module.num_batches_tracked for module in norms)

    def read(self, frame: TensorFrame) -> None:
        """Puts the present values into a frame, in the order in which passes read them."""
        for name in ("widen", "halve", "tail"):
            frame.place(f"{name}_weights", _for_forward(self._values[f"{name}_weights"]))
            frame.place(f"{name}_biases", self._values[f"{name}_biases"])
        if "inner_weights" in self._values:
            frame.place("inner_weights", _for_forward(self._values["inner_weights"]))
            frame.place("inner_biases", self._values["inner_biases"])
        for name in ("norm_weights", "norm_biases"):
            if name in self._values:
                frame.place(name, self._values[name])

    def read_transposed(self, frame: TensorFrame) -> None:
        """Puts the weights into a frame as the way back reads them."""
        for name in ("halve", "tail", "inner"):
            if f"{name}_weights" in self._values:
                transposed = _for_gradient(self._values[f"{name}_weights"])
                frame.place(f"{name}_transposed", transposed)

    def fold(self, frame: TensorFrame) -> None:
        """Folds the batch norms of evaluation mode into what `read` has put into a frame."""
        if "norm_weights" not in self._values:
            return
        scales = self._values["norm_weights"] / torch.sqrt(self._variances + EPSILON)
        weights = frame["inner_weights"] * scales[:, None, None, None, :]
        biases = (self._values["inner_biases"] - self._means) * scales
        frame.place("inner_weights", weights)
        frame.place("inner_biases", biases + self._values["norm_biases"])

    def track(self, norms: Tensor, numbers: int) -> None:
        """Keeps the running statistics, as a batch norm does in training.

        Args:
            norms: float32 [layers, 4, 8], of which the means and biased variances are taken.
            numbers: in each channel of the batch.
        """
        self._means.lerp_(norms[:, 0], MOMENTUM)
        self._variances.lerp_(norms[:, 1] * (numbers / (numbers - 1)), MOMENTUM)
        self._batches.add_(1)

    def write_weight_gradient(self, name: str, gradient: Tensor) -> None:
        """Takes gradients of weights, float32 [..., kernel x kernel x inputs x outputs]."""
        to = self.gradients[f"{name}_weights"]
        *layers, outputs, inputs, kernel, _ = to.shape
        by_place = gradient.view(*layers, kernel, kernel, inputs, outputs)
        first = len(layers)
        order = [*range(first), first + 3, first + 2, first, first + 1]
        to.copy_(by_place.permute(order))

    def attach_gradients(self) -> None:
        """Gives each parameter its part of the gradients."""
        for parameter, gradient in self._owners:
            parameter.grad = gradient

    def _hold(self, name: str, parameter: nn.Parameter) -> None:
        self._values[name] = parameter.detach()
        self.gradients[name] = torch.zeros_like(self._values[name])
        self._owners.append((parameter, self.gradients[name]))

    def _hold_all(self, name: str, parameters: list[nn.Parameter]) -> None:
        if not parameters:
            return
        self._values[name] = _gather(parameters)
        self.gradients[name] = torch.zeros_like(self._values[name])
        self._owners += zip(parameters, self.gradients[name], strict=True)


def _gather(tensors: Iterable[Tensor | None]) -> Tensor:
    """Moves tensors of one shape into a common one, and returns it."""
    parts = [tensor for tensor in tensors if tensor is not None]
    if not parts:
        return torch.empty(0, CHANNELS)
    whole = torch.stack([part.detach() for part in parts])
    for part, place in zip(parts, whole, strict=True):
        part.data = place
    return whole


def _for_forward(weights: Tensor) -> Tensor:
    """[..., outputs, inputs, kernel, kernel] as [..., kernel, kernel, inputs, outputs]."""
    return weights.movedim((-2, -1, -3, -4), (-4, -3, -2, -1)).contiguous()


def _for_gradient(weights: Tensor) -> Tensor:
    """[..., outputs, inputs, kernel, kernel] as [..., kernel, kernel, outputs, inputs]."""
    return weights.movedim((-2, -1), (-4, -3)).contiguous()
