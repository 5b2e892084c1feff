"""Exported networks by the passes of this package, without torch."""

from functools import cache

import numpy as np
import onnx
from llvmlite import ir
from numpy.typing import NDArray
from onnx import numpy_helper

from leadline.models.simd.compiler import Compiled
from leadline.models.simd.frame import Crew, Frame
from leadline.models.simd.passes import PLANE, TAIL, WIDEN, emit_inference_pass

Floats = NDArray[np.float32]

LANES = 8
"""Images that `ExportedNetwork` computes at once.

A group takes the same time whether it is full: with more lanes, the few images
that wait for a server at a time would leave most of them empty.
"""

_ALIGNMENT = 64


@cache
def inference_pass(residual: bool, lanes: int) -> Compiled:
    """Returns the pass `infer` of all networks with or without residual connections."""

    def emit(module: ir.Module) -> None:
        emit_inference_pass(module, residual=residual, lanes=lanes)

    return Compiled(f"inference {residual=} {lanes=}", emit)


class Workspace:
    """What lies between the layers of the network that computes.

    Networks that take turns share one.

    Args:
        largest_batch: images in the largest batch.
        threads: that compute.
    """

    def __init__(self, *, largest_batch: int, threads: int) -> None:
        groups = -(-largest_batch // LANES)
        self.images = _aligned(groups, WIDEN.input_vectors, LANES)
        self.widened = _aligned(threads, WIDEN.output_vectors, LANES)
        self.activations = _aligned(threads, 2, PLANE, LANES)
        self.features = _aligned(groups, TAIL.output_vectors, LANES)


class ExportedNetwork:
    """A network as `leadline.models.export` writes it, on a CPU's vector units.

    Equal to it but for rounding. Some three times as fast as ONNX Runtime where
    a batch has 8 images or more, whose kernels are made for more channels, and
    slower where it has fewer than 3.

    Args:
        model: the serialised ONNX model, batch norms folded in.
        crew: who computes.
    """

    def __init__(self, model: bytes, crew: Crew) -> None:
        graph = onnx.load_model_from_string(model).graph
        constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}

        def layers(operator: str) -> list[list[NDArray[np.float32]]]:
            nodes = [node for node in graph.node if node.op_type == operator]
            return [[constants[name] for name in node.input[1:]] for node in nodes]

        residual = any(node.op_type == "Add" for node in graph.node)
        self._infer = inference_pass(residual, LANES).function("infer")
        self._crew = crew
        self._frame = Frame()
        self._place_convolutions(layers("Conv"))
        (self._hidden, hidden_biases), (self._output,) = layers("Gemm")
        self._hidden_biases = hidden_biases[:, None]

    def logits(self, images: Floats, workspace: Workspace) -> Floats:
        """Returns the logits, float32 [n, classes].

        Args:
            images: float32 [n, 3, 32, 32], normalised.
            workspace: which no one else uses meanwhile.
        """
        groups = -(-len(images) // LANES)
        _into_lanes(images, workspace.images)
        frame = self._frame
        frame.number("groups", groups)
        for name in ("images", "widened", "activations", "features"):
            frame.place_array(name, getattr(workspace, name))
        self._crew.run(self._infer, frame, groups)
        by_lane = self._classify(workspace.features[:groups])
        return by_lane.transpose(0, 2, 1).reshape(-1, by_lane.shape[1])[: len(images)]

    def _classify(self, features: Floats) -> Floats:
        # Group by group: products so small stay in the thread that asks for them. What
        # lanes without an image hold may be anything.
        with np.errstate(over="ignore", invalid="ignore"):
            hidden = self._hidden @ features + self._hidden_biases
            logits: Floats = self._output @ np.maximum(hidden, 0, out=hidden)
        return logits

    def _place_convolutions(self, layers: list[list[Floats]]) -> None:
        frame, (widen, halve, *inner, tail) = self._frame, layers
        frame.number("layers", len(inner))
        for name, (weights, biases) in (("widen", widen), ("halve", halve), ("tail", tail)):
            frame.place_array(f"{name}_weights", _by_place(weights))
            frame.place_array(f"{name}_biases", biases)
        if inner:
            frame.place_array("inner_weights", _by_place(np.stack([one[0] for one in inner])))
            frame.place_array("inner_biases", np.stack([one[1] for one in inner]))


def _into_lanes(images: Floats, lanes: Floats) -> None:
    """Turns [n][numbers] into [groups][numbers][lanes]; what a group lacks stays what it was."""
    whole = len(images) // LANES
    flat = images.reshape(len(images), -1)
    lanes[:whole] = flat[: whole * LANES].reshape(whole, LANES, lanes.shape[1]).transpose(0, 2, 1)
    if left := len(images) - whole * LANES:
        lanes[whole, :, :left] = flat[whole * LANES :].T


def _by_place(weights: Floats) -> Floats:
    """[..., outputs, inputs, kernel, kernel] as [..., kernel, kernel, inputs, outputs]."""
    return np.ascontiguousarray(np.moveaxis(weights, (-2, -1, -3, -4), (-4, -3, -2, -1)))


def _aligned(*shape: int) -> Floats:
    """Zeros that begin where vectors may."""
    size = 4 * int(np.prod(shape))
    memory = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)
