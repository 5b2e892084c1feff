"""Exports trained networks as ONNX models."""

from collections import deque
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from leadline.models.checkpoint_files import INPUT, LOGITS, PROBABILITIES
from leadline.models.images import IMAGE_SIZE
from leadline.models.network import BlockNetwork, ResidualBlock

# Old enough for the inference engines of recent years.
_OPSET = 17
_IR_VERSION = 8

_Array = npt.NDArray[np.float64]


def to_onnx(network: BlockNetwork) -> bytes:
    """Returns the network as a serialised ONNX model.

    Its input, `images`, is float32 [N, 3, 32, 32], normalised; its outputs are
    `logits` and `probabilities`, float32 [N, classes]. Each batch norm is
    folded into the convolution before it, in float64. So the outputs equal
    those of the network in evaluation mode, except for rounding.

    Source of the folding: Jacob et al. (2018), "Quantization and Training of
    Neural Networks for Efficient Integer-Arithmetic-Only Inference", section 3.2.

    Raises:
        TypeError: the network has a layer of an unknown type.
    """
    graph = _Graph()
    _add_layers(graph, network.children())
    return graph.serialize(network.architecture.classes)


def _add_layers(graph: "_Graph", modules: Iterable[nn.Module]) -> None:
    """Appends modules in this order."""
    layers = deque(modules)
    while layers:
        layer = layers.popleft()
        match layer:
            case ResidualBlock():
                _add_residual_block(graph, layer)
            case nn.Sequential():
                _add_layers(graph, layer)
            case nn.Conv2d():
                follows = bool(layers) and isinstance(layers[0], nn.BatchNorm2d)
                graph.convolve(layer, *_fold(layer, layers.popleft() if follows else None))
            case nn.ReLU():
                graph.add("Relu")
            case nn.Flatten():
                graph.add("Flatten")
            case nn.Linear():
                # The weight and, if it exists, the bias.
                graph.add("Gemm", *map(_array, layer.parameters()), transB=1)
            case _:
                raise TypeError(f"{type(layer).__name__} layers cannot be exported")


def _add_residual_block(graph: "_Graph", block: ResidualBlock) -> None:
    *branch, activation = block
    identity = graph.last
    _add_layers(graph, branch)
    graph.add_to(identity)
    _add_layers(graph, [activation])


def _fold(convolution: nn.Conv2d, norm: nn.Module | None) -> tuple[_Array, _Array]:
    """Folds a batch norm into the weight and the bias of the convolution before it."""
    weight, bias = _array(convolution.weight), _array(convolution.bias)
    if isinstance(norm, nn.BatchNorm2d):
        scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
        weight = weight * scale[:, None, None, None]
        bias = (bias - _array(norm.running_mean)) * scale + _array(norm.bias)
    return weight, bias


def _array(tensor: Tensor | None) -> _Array:
    if tensor is None:
        raise TypeError("a layer without this parameter cannot be exported")
    array: _Array = tensor.detach().cpu().double().numpy()
    return array


class _Graph:
    """Builds an ONNX graph, operator by operator."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self.last = INPUT
        """The name of the last operator's output."""

    def convolve(self, layer: nn.Conv2d, weight: _Array, bias: _Array) -> None:
        self.add(
            "Conv",
            weight,
            bias,
            kernel_shape=layer.kernel_size,
            strides=layer.stride,
            pads=[int(side) for side in layer.padding] * 2,
        )

    def add(
        self, operator: str, *constants: _Array, output: str = "", **attributes: object
    ) -> None:
        """Appends an operator whose inputs are the last operator's output and constants."""
        others = [self._constant(values) for values in constants]
        self._append(operator, others, output, attributes)

    def add_to(self, value: str) -> None:
        """Appends the sum of the last operator's output and an earlier value."""
        self._append("Add", [value])

    def _append(
        self,
        operator: str,
        others: list[str],
        output: str = "",
        attributes: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        inputs = [self.last, *others]
        self.last = output or f"value{len(self._nodes)}"
        node = helper.make_node(operator, inputs, [self.last])
        node.attribute.extend(
            helper.make_attribute(name, value) for name, value in attributes.items()
        )
        self._nodes.append(node)

    def serialize(self, classes: int) -> bytes:
        self._nodes[-1].output[0] = LOGITS
        self.last = LOGITS
        self.add("Softmax", output=PROBABILITIES, axis=1)
        images = helper.make_tensor_value_info(
            INPUT, TensorProto.FLOAT, ("images", 3, IMAGE_SIZE, IMAGE_SIZE)
        )
        outputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ("images", classes))
            for name in (LOGITS, PROBABILITIES)
        ]
        graph = helper.make_graph(self._nodes, "leadline", [images], outputs, self._constants)
        model = helper.make_model(
            graph,
            producer_name="leadline",
            ir_version=_IR_VERSION,
            opset_imports=[helper.make_opsetid("", _OPSET)],
        )
        return model.SerializeToString()

    def _constant(self, values: _Array) -> str:
        name = f"constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name
