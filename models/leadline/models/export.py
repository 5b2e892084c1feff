"""Exports trained networks as ONNX models, from their weights and without torch."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import onnx
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper
from safetensors import SafetensorError

from leadline.models._shapes import EPSILON, HALVE, INNER, TAIL, WIDEN, Convolution
from leadline.models.architecture import Architecture
from leadline.models.checkpoint_files import CheckpointError, open_checkpoint, stem_of
from leadline.models.images import IMAGE_SIZE
from leadline.models.simd.unsupported import check_convolution

INPUT = "images"
"""The ONNX model's input, float32 [N, 3, 32, 32], normalised."""

LOGITS = "logits"
"""The ONNX model's first output, float32 [N, classes]."""

PROBABILITIES = "probabilities"
"""The ONNX model's second output, the softmax of the first."""

# Old enough for the inference engines of recent years.
_OPSET = 17
_IR_VERSION = 8

_Array = npt.NDArray[np.float64]


def load_onnx(directory: Path, epoch: int) -> bytes:
    """Exports an epoch's network as a serialised ONNX model; equal weights give equal bytes.

    Raises:
        CheckpointError: a file is missing, truncated, damaged or of another architecture.
    """
    reader = open_checkpoint(directory, epoch)
    try:
        weights = safetensors.numpy.load(reader.read("weights"))
        return to_onnx(reader.info.architecture, weights)
    except (SafetensorError, ValueError, KeyError) as error:
        text = f"the weights of {stem_of(epoch)} in {directory} are of another architecture"
        raise CheckpointError(f"{text}: {error}") from error


def to_onnx(architecture: Architecture, weights: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    """Returns a network as a serialised ONNX model.

    Its input, `images`, is float32 [N, 3, 32, 32], normalised; its outputs are
    `logits` and `probabilities`, float32 [N, classes]. Each batch norm is
    folded into the convolution before it, in float64. So the outputs equal
    those of the network in evaluation mode, except for rounding.

    Source of the folding: Jacob et al. (2018), "Quantization and Training of
    Neural Networks for Efficient Integer-Arithmetic-Only Inference", section 3.2.

    Args:
        architecture: of the network.
        weights: parameters and buffers by their names in `leadline.models.network`.

    Raises:
        KeyError: a weight is missing.
        ValueError: a weight does not fit the architecture.
    """
    graph = _Graph(weights)
    graph.convolve("head.widen", WIDEN)
    graph.convolve("head.halve", HALVE)
    for block in range(architecture.blocks):
        _add_block(graph, f"blocks.{block}", architecture)
    graph.convolve("tail", TAIL)
    graph.add("Flatten")
    graph.multiply("classifier.hidden.weight", "classifier.hidden.bias")
    graph.add("Relu")
    graph.multiply("classifier.output.weight")
    return graph.serialize(architecture)


def _add_block(graph: "_Graph", name: str, architecture: Architecture) -> None:
    identity = graph.last
    for number, step in enumerate(("first", "second")[: architecture.block_convolutions]):
        if number:
            graph.add("Relu")
        norm = f"{name}.{step}_norm" if architecture.batch_norm else None
        graph.convolve(f"{name}.{step}_conv", INNER, norm=norm)
    if architecture.residual:
        graph.add_to(identity)
    graph.add("Relu")


class _Graph:
    """Builds an ONNX graph, operator by operator."""

    def __init__(self, weights: Mapping[str, npt.NDArray[np.generic]]) -> None:
        self._weights = weights
        self._used: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self.last = INPUT
        """The name of the last operator's output."""

    def convolve(self, name: str, shape: Convolution, *, norm: str | None = None) -> None:
        """Appends a convolution, with the batch norm after it folded in."""
        weight, bias = self._array(f"{name}.weight"), self._array(f"{name}.bias")
        check_convolution(name, shape, weight.shape, stride=[shape.stride], padding=[shape.padding])
        if norm is not None:
            scale = self._array(f"{norm}.weight")
            scale = scale / np.sqrt(self._array(f"{norm}.running_var") + EPSILON)
            weight = weight * scale[:, None, None, None]
            bias = (bias - self._array(f"{norm}.running_mean")) * scale
            bias = bias + self._array(f"{norm}.bias")
        self.add(
            "Conv",
            weight,
            bias,
            kernel_shape=[shape.kernel] * 2,
            strides=[shape.stride] * 2,
            pads=[shape.padding] * 4,
        )

    def multiply(self, *names: str) -> None:
        """Appends a linear layer with this weight and, if it has one, this bias."""
        self.add("Gemm", *map(self._array, names), transB=1)

    def add(
        self, operator: str, *constants: _Array, output: str = "", **attributes: object
    ) -> None:
        """Appends an operator whose inputs are the last operator's output and constants."""
        others = [self._constant(values) for values in constants]
        self._append(operator, others, output, attributes)

    def add_to(self, value: str) -> None:
        """Appends the sum of the last operator's output and an earlier value."""
        self._append("Add", [value])

    def _array(self, name: str) -> _Array:
        self._used.add(name)
        return self._weights[name].astype(np.float64)

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

    def serialize(self, architecture: Architecture) -> bytes:
        """Ends the graph with its outputs.

        Raises:
            ValueError: the network has weights for which the graph has no place.
        """
        counters = ("num_batches_tracked",)
        if unused := {name for name in self._weights if not name.endswith(counters)} - self._used:
            raise ValueError(f"there is no place for {min(unused)}")
        self._nodes[-1].output[0] = LOGITS
        self.last = LOGITS
        self.add("Softmax", output=PROBABILITIES, axis=1)
        images = helper.make_tensor_value_info(
            INPUT, TensorProto.FLOAT, ("images", 3, IMAGE_SIZE, IMAGE_SIZE)
        )
        outputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ("images", architecture.classes))
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
