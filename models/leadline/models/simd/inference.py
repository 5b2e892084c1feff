"""Inference with exported networks by compiled kernels, without torch."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from leadline.models._shapes import HALVE, INNER, TAIL, WIDEN
from leadline.models.simd import single
from leadline.models.simd.compiler import Compiled
from leadline.models.simd.fields import (
    HALVE_LAYER,
    INNER_LAYER,
    PLANE,
    TAIL_LAYER,
    WIDEN_LAYER,
    Field,
    Layer,
)
from leadline.models.simd.forward_pass import emit_inference_pass
from leadline.models.simd.instruction_set import InstructionSet, instruction_set
from leadline.models.simd.kernel_args import KernelArgs, aligned_zeros
from leadline.models.simd.single import emit_single_pass
from leadline.models.simd.thread_team import ThreadTeam
from leadline.models.simd.unsupported import UnsupportedNetworkError, check_convolution

Floats = NDArray[np.float32]

LANES = 8
"""Images in a group, with every instruction set.

A group takes the same time whether or not it is full. With more lanes, most would be
empty, because a server has few pending requests at a time.
"""

# A group takes as long as this many single images.
_GROUP_COST = 7

# Two of the head and one of the tail.
_OUTER_CONVOLUTIONS = 3


@cache
def inference_pass(skip: int, lanes: int, isa: InstructionSet) -> Compiled:
    """Returns the module with `infer`, for identity connections over `skip` convolutions."""
    return Compiled(
        f"inference {skip=} {lanes=}",
        lambda module: emit_inference_pass(module, skip=skip, lanes=lanes),
        isa,
    )


@cache
def _single_pass(skip: int, isa: InstructionSet) -> Compiled:
    return Compiled(
        f"inference of one {skip=}",
        lambda module: emit_single_pass(module, skip=skip),
        isa,
    )


class Workspace:
    """Memory for the activations between layers; networks share it, one at a time."""

    def __init__(self, *, largest_batch: int, threads: int) -> None:
        groups = -(-largest_batch // LANES)
        self.threads = threads
        self.images = aligned_zeros(groups, WIDEN.input_vectors, LANES)
        self.features = aligned_zeros(groups, TAIL.output_vectors, LANES)
        self.single_image = aligned_zeros(WIDEN.size, WIDEN.size, WIDEN.inputs)
        self.single_features = aligned_zeros(TAIL.output_size**2, single.LANES)
        self.arrays = {
            Field.IMAGES: self.images,
            Field.WIDENED: aligned_zeros(threads, WIDEN.output_vectors, LANES),
            Field.ACTIVATIONS: aligned_zeros(threads, 2, PLANE, LANES),
            Field.FEATURES: self.features,
            Field.SINGLE_IMAGE: self.single_image,
            Field.SINGLE_WIDENED: aligned_zeros(WIDEN.output_size**2, single.LANES),
            Field.SINGLE_ACTIVATIONS: aligned_zeros(2, single.BORDERED, single.LANES),
            Field.SINGLE_FEATURES: self.single_features,
        }


class ExportedNetwork:
    """A network from `leadline.models.export`, computed with a CPU's vector units.

    Its logits equal those of the ONNX graph except for rounding. The logits of an image
    are the same, to the bit, in any batch. It is about three times as fast as ONNX
    Runtime, whose kernels are optimised for more channels.

    Raises:
        UnsupportedNetworkError: the network has other shapes than the kernels.
    """

    def __init__(self, model: bytes, team: ThreadTeam, isa: InstructionSet | None = None) -> None:
        isa = isa or instruction_set()
        graph = onnx.load_model_from_string(model).graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

        def layers(operator: str) -> list[list[Floats]]:
            nodes = [node for node in graph.node if node.op_type == operator]
            return [[constants[name] for name in node.input[1:]] for node in nodes]

        self._team = team
        # Groups and single images differ only in the layout of the tail's parameters.
        self._groups, self._single = KernelArgs(), KernelArgs()
        self._workspace: Workspace | None = None
        skip = _skip_of(graph)
        _check_convolutions(graph, layers("Conv"))
        self._set_convolutions(layers("Conv"))
        self._infer = inference_pass(skip, LANES, isa).function("infer")
        self._infer_single = _single_pass(skip, isa).function("infer_one")
        (self._hidden, hidden_biases), (self._output,) = layers("Gemm")
        self._hidden_biases = hidden_biases[:, None]

    def logits(self, images: Floats, workspace: Workspace) -> Floats:
        """Returns the logits, float32 [n, classes].

        Args:
            images: float32 [n, 3, 32, 32], normalised.
            workspace: must not be in use by another thread.

        Raises:
            ValueError: the workspace is for a smaller batch or fewer threads.
        """
        self._use(workspace)
        groups, left = divmod(len(images), LANES)
        groups += left >= _GROUP_COST
        in_groups = min(groups * LANES, len(images))
        if groups:
            self._infer_groups(images[:in_groups], groups, workspace)
        for number in range(in_groups, len(images)):
            self._infer_alone(images[number], number, workspace)
        by_lane = self._classify(workspace.features[: -(-len(images) // LANES)])
        return by_lane.transpose(0, 2, 1).reshape(-1, by_lane.shape[1])[: len(images)]

    def _infer_groups(self, images: Floats, groups: int, workspace: Workspace) -> None:
        _into_lanes(images, workspace.images)
        self._groups.set_number(Field.GROUPS, groups)
        self._team.run(self._infer, self._groups, groups)

    def _infer_alone(self, image: Floats, number: int, workspace: Workspace) -> None:
        workspace.single_image[:] = image.transpose(1, 2, 0)
        self._infer_single(self._single.address, 0, 1)
        group, lane = divmod(number, LANES)
        features = workspace.single_features[:, : TAIL.outputs]
        workspace.features[group, :, lane] = features.T.reshape(-1)

    def _use(self, workspace: Workspace) -> None:
        if workspace is self._workspace:
            return
        if workspace.threads < self._team.threads:
            raise ValueError(f"a workspace of {workspace.threads} threads is too small")
        self._workspace = workspace
        for field, array in workspace.arrays.items():
            self._groups.set_array(field, array)
            self._single.set_array(field, array)

    def _classify(self, features: Floats) -> Floats:
        # Group by group, so that the small products stay in the calling thread. Lanes
        # without an image may hold any numbers.
        with np.errstate(over="ignore", invalid="ignore"):
            hidden = self._hidden @ features + self._hidden_biases
            logits: Floats = self._output @ np.maximum(hidden, 0, out=hidden)
        return logits

    def _set_convolutions(self, layers: list[list[Floats]]) -> None:
        widen, halve, *inner, tail = layers
        both = (self._groups, self._single)
        for args in both:
            args.set_number(Field.LAYERS, len(inner))
            args.set_number(Field.GROUPS, 1)
        _set_layer(both, WIDEN_LAYER, widen)
        _set_layer(both, HALVE_LAYER, halve)
        if inner:
            stacked = [np.stack(parts) for parts in zip(*inner, strict=True)]
            _set_layer(both, INNER_LAYER, stacked)
        _set_layer((self._groups,), TAIL_LAYER, tail)
        # For a single image, the tail's 4 channels are padded to a vector of 8.
        padded = [_padded(part, single.LANES) for part in tail]
        _set_layer((self._single,), TAIL_LAYER, padded)


def _skip_of(graph: onnx.GraphProto) -> int:
    """Returns the number of convolutions that an identity connection spans; 0 without them."""
    operators = [node.op_type for node in graph.node]
    connections = operators.count("Add")
    if not connections:
        return 0
    skip, left = divmod(operators.count("Conv") - _OUTER_CONVOLUTIONS, connections)
    if left or skip not in (1, 2):
        raise UnsupportedNetworkError(
            f"identity connections must span 1 or 2 convolutions, not {skip}"
        )
    return skip


def _check_convolutions(graph: onnx.GraphProto, layers: list[list[Floats]]) -> None:
    nodes = [node for node in graph.node if node.op_type == "Conv"]
    names = ["widen", "halve", *["inner"] * (len(nodes) - _OUTER_CONVOLUTIONS), "tail"]
    shapes = {"widen": WIDEN, "halve": HALVE, "inner": INNER, "tail": TAIL}
    for name, node, (weights, _) in zip(names, nodes, layers, strict=True):
        attributes = {attribute.name: list(attribute.ints) for attribute in node.attribute}
        check_convolution(
            name,
            shapes[name],
            weights.shape,
            stride=attributes["strides"],
            padding=attributes["pads"],
        )


def _set_layer(targets: Sequence[KernelArgs], layer: Layer, parameters: Sequence[Floats]) -> None:
    """Sets a layer's weights and biases; weights are [..., outputs, inputs, kernel, kernel]."""
    weights, biases = parameters
    by_tap = np.moveaxis(weights, (-2, -1, -3, -4), (-4, -3, -2, -1))
    for field, values in ((layer.weights, by_tap), (layer.biases, biases)):
        aligned = aligned_zeros(*values.shape)
        aligned[:] = values
        for args in targets:
            args.set_array(field, aligned)


def _padded(part: Floats, outputs: int) -> Floats:
    """Pads weights or biases with zeros to a number of outputs."""
    whole = np.zeros((outputs, *part.shape[1:]), np.float32)
    whole[: len(part)] = part
    return whole


def _into_lanes(images: Floats, lanes: Floats) -> None:
    """Copies [n, numbers] to [groups, numbers, lanes]; lanes without an image stay unchanged."""
    whole, left = divmod(len(images), LANES)
    flat = images.reshape(len(images), lanes.shape[1])
    together = flat[: whole * LANES].reshape(whole, LANES, lanes.shape[1])
    lanes[:whole] = together.transpose(0, 2, 1)
    if left:
        lanes[whole, :, :left] = flat[whole * LANES :].T
