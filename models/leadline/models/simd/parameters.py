"""Converts the parameters of convolutions and batch norms to the kernels' layouts."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from leadline.models._shapes import CHANNELS, EPSILON, MOMENTUM, Convolution
from leadline.models.network import BlockNetwork
from leadline.models.simd.fields import (
    HALVE_LAYER,
    INNER_LAYER,
    TAIL_LAYER,
    TRANSPOSED,
    WIDEN_LAYER,
    Field,
    Layer,
)
from leadline.models.simd.tensor_args import TensorArgs
from leadline.models.simd.unsupported import UnsupportedNetworkError, check_convolution

# Keys are the paths of the modules.
_OUTER = {"head.widen": WIDEN_LAYER, "head.halve": HALVE_LAYER, "tail": TAIL_LAYER}


class StackParameters:
    """The parameters of all layers except the classifier; equal layers share one tensor.

    A step updates the layers inside the blocks together, so their parameters become
    views of a common tensor.

    Args:
        network: in main memory; its parameters and buffers stay the same objects,
            but get new storage.

    Raises:
        UnsupportedNetworkError: the network has other shapes than the kernels.
    """

    def __init__(self, network: BlockNetwork) -> None:
        modules = list(network.blocks.modules())
        norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
        convolutions = [module for module in modules if isinstance(module, nn.Conv2d)]
        _check_network(network, convolutions, norms)
        self._owners: list[tuple[nn.Parameter, Tensor]] = []
        self._values: dict[Field, Tensor] = {}
        self.gradients: dict[Field, Tensor] = {}
        """By the parameter's field; in the module's shape, [layers, ...] for equal layers."""
        for path, layer in _OUTER.items():
            self._hold(layer.weights, network.get_parameter(f"{path}.weight"))
            self._hold(layer.biases, network.get_parameter(f"{path}.bias"))
        for name, inner, norm in (
            ("weight", Field.INNER_WEIGHTS, Field.NORM_WEIGHTS),
            ("bias", Field.INNER_BIASES, Field.NORM_BIASES),
        ):
            self._hold_all(inner, [module.get_parameter(name) for module in convolutions])
            self._hold_all(norm, [module.get_parameter(name) for module in norms])
        self._means = _gather(module.running_mean for module in norms)
        self._variances = _gather(module.running_var for module in norms)
        self._batches = _gather(module.num_batches_tracked for module in norms)

    def write_to(self, args: TensorArgs) -> None:
        """Writes the current values to an argument block, in the layouts of the forward pass."""
        for layer in (*_OUTER.values(), INNER_LAYER):
            if layer.weights in self._values:
                args.set_tensor(layer.weights, _for_forward(self._values[layer.weights]))
                args.set_tensor(layer.biases, self._values[layer.biases])
        for field in (Field.NORM_WEIGHTS, Field.NORM_BIASES):
            if field in self._values:
                args.set_tensor(field, self._values[field])

    def write_transposed_to(self, args: TensorArgs) -> None:
        """Writes the transposed weights to an argument block, for the backward pass."""
        for layer, field in TRANSPOSED.items():
            if layer.weights in self._values:
                args.set_tensor(field, _for_gradient(self._values[layer.weights]))

    def fold(self, args: TensorArgs) -> None:
        """Folds the batch norms, in evaluation mode, into the weights that `write_to` wrote."""
        if Field.NORM_WEIGHTS not in self._values:
            return
        scales = self._values[Field.NORM_WEIGHTS] / torch.sqrt(self._variances + EPSILON)
        weights = args[Field.INNER_WEIGHTS] * scales[:, None, None, None, :]
        biases = (self._values[Field.INNER_BIASES] - self._means) * scales
        args.set_tensor(Field.INNER_WEIGHTS, weights)
        args.set_tensor(Field.INNER_BIASES, biases + self._values[Field.NORM_BIASES])

    def track(self, norms: Tensor, numbers: int) -> None:
        """Updates the running statistics, as a batch norm does in training.

        Args:
            norms: float32 [layers, 4, 8], whose first two rows are means and biased variances.
            numbers: values in each channel of the batch.
        """
        self._means.lerp_(norms[:, 0], MOMENTUM)
        self._variances.lerp_(norms[:, 1] * (numbers / (numbers - 1)), MOMENTUM)
        self._batches.add_(1)

    def set_weight_gradient(self, layer: Layer, gradient: Tensor) -> None:
        """Sets the gradient of a layer's weights.

        Args:
            layer: `INNER_LAYER` stands for all layers inside the blocks.
            gradient: float32 [..., kernel x kernel x inputs x outputs].
        """
        to = self.gradients[layer.weights]
        *layers, outputs, inputs, kernel, _ = to.shape
        by_tap = gradient.view(*layers, kernel, kernel, inputs, outputs)
        first = len(layers)
        order = [*range(first), first + 3, first + 2, first, first + 1]
        to.copy_(by_tap.permute(order))

    def attach_gradients(self) -> None:
        """Gives each parameter its view of the gradients."""
        for parameter, gradient in self._owners:
            parameter.grad = gradient

    def _hold(self, field: Field, parameter: nn.Parameter) -> None:
        self._values[field] = parameter.detach()
        self.gradients[field] = torch.zeros_like(self._values[field])
        self._owners.append((parameter, self.gradients[field]))

    def _hold_all(self, field: Field, parameters: list[nn.Parameter]) -> None:
        if not parameters:
            return
        self._values[field] = _gather(parameters)
        self.gradients[field] = torch.zeros_like(self._values[field])
        self._owners += zip(parameters, self.gradients[field], strict=True)


def _check_network(
    network: BlockNetwork, convolutions: Sequence[nn.Conv2d], norms: Sequence[nn.BatchNorm2d]
) -> None:
    layers = network.architecture.inner_convolutions
    expected = layers, layers * network.architecture.batch_norm
    if (len(convolutions), len(norms)) != expected:
        raise UnsupportedNetworkError(
            f"the blocks have {len(convolutions)} convolutions and {len(norms)} batch norms, "
            f"but the architecture says {expected[0]} and {expected[1]}"
        )
    for path, layer in _OUTER.items():
        _check_layer(path, network.get_submodule(path), layer.shape)
    for module in convolutions:
        _check_layer("a block", module, INNER_LAYER.shape)
    for norm in norms:
        if (norm.num_features, norm.eps, norm.momentum) != (CHANNELS, EPSILON, MOMENTUM):
            raise UnsupportedNetworkError(
                f"a batch norm is {norm}, but the kernels are written for {CHANNELS} channels, "
                f"an epsilon of {EPSILON} and a momentum of {MOMENTUM}"
            )


def _check_layer(name: str, module: nn.Module, shape: Convolution) -> None:
    if (
        not isinstance(module, nn.Conv2d)
        or module.bias is None
        or module.dilation != (1, 1)
        or isinstance(module.padding, str)
        or module.padding_mode != "zeros"
    ):
        raise UnsupportedNetworkError(
            f"{name} is {module}, but the kernels are written for a convolution with biases, "
            "a numeric padding with zeros, and no dilation"
        )
    check_convolution(
        name, shape, module.weight.shape, stride=module.stride, padding=module.padding
    )


def _gather(tensors: Iterable[Tensor | None]) -> Tensor:
    """Moves tensors of one shape into a common tensor, and returns it."""
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
