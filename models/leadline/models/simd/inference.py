"""Exported networks by the passes of this package, without torch."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
from llvmlite import ir
from numpy.typing import NDArray
from onnx import numpy_helper

from leadline.models.simd import single
from leadline.models.simd.compiler import Compiled
from leadline.models.simd.convolutions import Convolution
from leadline.models.simd.frame import Crew, Frame
from leadline.models.simd.instruction_set import InstructionSet, instruction_set
from leadline.models.simd.passes import (
    HALVE,
    INNER,
    PLANE,
    TAIL,
    WIDEN,
    emit_inference_pass,
)
from leadline.models.simd.single import emit_single_pass

Floats = NDArray[np.float32]

LANES = 8
"""Images that a group has.

A group takes the same time whether it is full: with more lanes, the few images
that wait for a server at a time would leave most of them empty.
"""

# A group takes as long as so many images by themselves.
_GROUP_COSTS = 7

_ALIGNMENT = 64

# Two of the head and one of the tail.
_OUTER_CONVOLUTIONS = 3


@cache
def inference_pass(skip: int, lanes: int, isa: InstructionSet) -> Compiled:
    """Returns the pass `infer` of all networks whose identity connections span `skip` layers."""

    def emit(module: ir.Module) -> None:
        emit_inference_pass(module, skip=skip, lanes=lanes)

    return Compiled(f"inference {skip=} {lanes=}", emit, isa)


@cache
def _single_pass(skip: int, isa: InstructionSet) -> Compiled:
    return Compiled(
        f"inference of one {skip=}",
        lambda module: emit_single_pass(module, skip=skip),
        isa,
    )


class Workspace:
    """What lies between the layers of the network that computes.

    Networks that take turns share one.

    Args:
        largest_batch: images in the largest batch.
        threads: that compute.
    """

    def __init__(self, *, largest_batch: int, threads: int) -> None:
        groups = -(-largest_batch // LANES)
        self.threads = threads
        self.features = _aligned(groups, TAIL.output_vectors, LANES)
        self.of_groups = {
            "images": _aligned(groups, WIDEN.input_vectors, LANES),
            "widened": _aligned(threads, WIDEN.output_vectors, LANES),
            "activations": _aligned(threads, 2, PLANE, LANES),
            "features": self.features,
        }
        self.of_one = {
            "images": _aligned(WIDEN.size, WIDEN.size, WIDEN.inputs),
            "widened": _aligned(WIDEN.output_size**2, single.LANES),
            "activations": _aligned(2, single.BORDERED, single.LANES),
            "features": _aligned(TAIL.output_size**2, single.LANES),
        }


class ExportedNetwork:
    """A network as `leadline.models.export` writes it, on a CPU's vector units.

    Equal to it but for rounding, and for an image the same to the bit in whatever
    batch it comes. Some three times as fast as ONNX Runtime, whose kernels are
    made for more channels.

    Args:
        model: the serialised ONNX model, batch norms folded in.
        crew: who computes.
        isa: the instructions to use; those of `instruction_set()` without.

    Raises:
        ValueError: it is a network of another kind.
    """

    def __init__(self, model: bytes, crew: Crew, isa: InstructionSet | None = None) -> None:
        isa = isa or instruction_set()
        graph = onnx.load_model_from_string(model).graph
        constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}

        def layers(operator: str) -> list[list[Floats]]:
            nodes = [node for node in graph.node if node.op_type == operator]
            return [[constants[name] for name in node.input[1:]] for node in nodes]

        skip = _skip_of(graph)
        self._infer = inference_pass(skip, LANES, isa).function("infer")
        self._infer_one = _single_pass(skip, isa).function("infer_one")
        self._crew = crew
        self._groups, self._one = Frame(), Frame()
        self._workspace: Workspace | None = None
        self._place_convolutions(layers("Conv"))
        (self._hidden, hidden_biases), (self._output,) = layers("Gemm")
        self._hidden_biases = hidden_biases[:, None]

    def logits(self, images: Floats, workspace: Workspace) -> Floats:
        """Returns the logits, float32 [n, classes].

        Args:
            images: float32 [n, 3, 32, 32], normalised.
            workspace: which no one else uses meanwhile.

        Raises:
            ValueError: the workspace is for a smaller batch or fewer threads.
        """
        self._work_in(workspace)
        groups, left = divmod(len(images), LANES)
        groups += left >= _GROUP_COSTS
        in_groups = min(groups * LANES, len(images))
        if groups:
            self._infer_groups(images[:in_groups], groups, workspace)
        for number in range(in_groups, len(images)):
            self._infer_alone(images[number], number, workspace)
        by_lane = self._classify(workspace.features[: -(-len(images) // LANES)])
        return by_lane.transpose(0, 2, 1).reshape(-1, by_lane.shape[1])[: len(images)]

    def _infer_groups(self, images: Floats, groups: int, workspace: Workspace) -> None:
        _into_lanes(images, workspace.of_groups["images"])
        self._groups.number("groups", groups)
        self._crew.run(self._infer, self._groups, groups)

    def _infer_alone(self, image: Floats, number: int, workspace: Workspace) -> None:
        workspace.of_one["images"][:] = image.transpose(1, 2, 0)
        self._infer_one(self._one.address, 0, 1)
        group, lane = divmod(number, LANES)
        features = workspace.of_one["features"][:, : TAIL.outputs]
        workspace.features[group, :, lane] = features.T.reshape(-1)

    def _work_in(self, workspace: Workspace) -> None:
        if workspace is self._workspace:
            return
        if workspace.threads < self._crew.threads:
            raise ValueError(f"a workspace of {workspace.threads} threads is too small")
        self._workspace = workspace
        for frame, arrays in (
            (self._groups, workspace.of_groups),
            (self._one, workspace.of_one),
        ):
            for name, array in arrays.items():
                frame.place_array(name, array)

    def _classify(self, features: Floats) -> Floats:
        # Group by group: products so small stay in the thread that asks for them. What
        # lanes without an image hold may be anything.
        with np.errstate(over="ignore", invalid="ignore"):
            hidden = self._hidden @ features + self._hidden_biases
            logits: Floats = self._output @ np.maximum(hidden, 0, out=hidden)
        return logits

    def _place_convolutions(self, layers: list[list[Floats]]) -> None:
        widen, halve, *inner, tail = layers
        for frame in (self._groups, self._one):
            frame.number("layers", len(inner))
            frame.number("groups", 1)
        both = (self._groups, self._one)
        _place(both, "widen", WIDEN, widen)
        _place(both, "halve", HALVE, halve)
        if inner:
            _place(both, "inner", INNER, [np.stack(parts) for parts in zip(*inner, strict=True)])
        _place((self._groups,), "tail", TAIL, tail)
        # Its 4 channels, too, are a vector of 8.
        whole = replace(TAIL, outputs=single.LANES)
        _place((self._one,), "tail", whole, [_padded(part, single.LANES) for part in tail])


def _skip_of(graph: onnx.GraphProto) -> int:
    """How many convolutions an identity connection spans; 0 without such connections."""
    operators = [node.op_type for node in graph.node]
    connections = operators.count("Add")
    if not connections:
        return 0
    skip, left = divmod(operators.count("Conv") - _OUTER_CONVOLUTIONS, connections)
    if left or skip not in (1, 2):
        raise ValueError(f"identity connections must span 1 or 2 convolutions, not {skip}")
    return skip


def _place(
    frames: Iterable[Frame], name: str, shape: Convolution, parameters: Sequence[Floats]
) -> None:
    """Places [..., outputs, inputs, kernel, kernel] as [..., kernel, kernel, inputs, outputs]."""
    weights, biases = parameters
    expected = (shape.outputs, shape.inputs, shape.kernel, shape.kernel)
    # The passes have these shapes written into them.
    if weights.shape[-4:] != expected or biases.shape[-1:] != expected[:1]:
        raise ValueError(f"{name} has weights of the shape {weights.shape}, not {expected}")
    by_place = np.moveaxis(weights, (-2, -1, -3, -4), (-4, -3, -2, -1))
    for field, array in (("weights", _aligned_copy(by_place)), ("biases", _aligned_copy(biases))):
        for frame in frames:
            frame.place_array(f"{name}_{field}", array)


def _padded(part: Floats, outputs: int) -> Floats:
    """Weights or biases with zeros for further outputs."""
    whole = np.zeros((outputs, *part.shape[1:]), np.float32)
    whole[: len(part)] = part
    return whole


def _into_lanes(images: Floats, lanes: Floats) -> None:
    """Turns [n][numbers] into [groups][numbers][lanes]; what a group lacks stays what it was."""
    whole, left = divmod(len(images), LANES)
    flat = images.reshape(len(images), lanes.shape[1])
    together = flat[: whole * LANES].reshape(whole, LANES, lanes.shape[1])
    lanes[:whole] = together.transpose(0, 2, 1)
    if left:
        lanes[whole, :, :left] = flat[whole * LANES :].T


def _aligned_copy(values: Floats) -> Floats:
    copy = _aligned(*values.shape)
    copy[:] = values
    return copy


def _aligned(*shape: int) -> Floats:
    """Zeros that begin where vectors may."""
    size = 4 * int(np.prod(shape))
    memory = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)
