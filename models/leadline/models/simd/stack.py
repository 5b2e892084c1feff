"""The convolutions of a network, in training and in inference, by the passes of this package."""

from functools import cache

import torch
from llvmlite import ir
from torch import Tensor

from leadline.models.network import BlockNetwork
from leadline.models.simd.compiler import Compiled
from leadline.models.simd.elementwise import CHANNELS
from leadline.models.simd.frame import Crew
from leadline.models.simd.inference import inference_pass
from leadline.models.simd.instruction_set import InstructionSet
from leadline.models.simd.parameters import StackParameters
from leadline.models.simd.passes import (
    HALVE,
    INNER,
    PLANE,
    SCRATCH,
    TAIL,
    WIDEN,
    emit_backward_pass,
    emit_forward_pass,
)
from leadline.models.simd.tensors import TensorFrame

__all__ = ["InferenceStack", "TrainingStack"]


@cache
def _training_passes(batch_norm: bool, skip: int, isa: InstructionSet) -> Compiled:
    lanes = isa.lanes

    def emit(module: ir.Module) -> None:
        emit_forward_pass(module, batch_norm=batch_norm, skip=skip, lanes=lanes)
        emit_backward_pass(module, batch_norm=batch_norm, skip=skip, lanes=lanes)

    return Compiled(f"training {batch_norm=} {skip=}", emit, isa)


class TrainingStack:
    """From pixels to features and back, for steps of training.

    The result does not depend on the number of threads, to the bit.

    The biases of convolutions before a batch norm, which takes any constant
    away again, get gradients of zero, where torch's are what rounding leaves.

    Args:
        network: the network whose convolutions these are; its parameters are read
            anew in each step, its gradients written, its batch norms' running
            statistics kept. They get common storage, and must not be moved.
        largest_batch: images in the largest batch.
        crew: who computes.
        isa: the instructions to use.
    """

    def __init__(
        self, network: BlockNetwork, largest_batch: int, crew: Crew, isa: InstructionSet
    ) -> None:
        architecture = network.architecture
        self._lanes = isa.lanes
        self._passes = _training_passes(architecture.batch_norm, architecture.skip, isa)
        self._forward, self._backward = map(self._passes.function, ("forward", "backward"))
        self._crew = crew
        self._layers = architecture.inner_convolutions
        self._has_norms = architecture.batch_norm and self._layers > 0
        self.parameters = StackParameters(network)
        self._most_groups = -(-largest_batch // self._lanes)
        self._frame = TensorFrame()
        self._images = 0
        self._groups = 0
        self._reserve()

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Returns the features, float32 [n, 100], of pixels, uint8 [n, 32, 32, 3]."""
        self._set_batch(len(pixels))
        frame = self._frame
        into_lanes(pixels, frame["images"][: self._groups])
        self.parameters.read(frame)
        self.parameters.read_transposed(frame)
        self._crew.run(self._forward, frame, self._groups)
        if self._has_norms:
            numbers = self._images * INNER.output_size**2
            self.parameters.track(frame["norms"], numbers)
        return from_lanes(frame["features"][: self._groups], self._images)

    @torch.no_grad()
    def backward(self, slopes: Tensor) -> None:
        """Sets the gradients of the convolutions and batch norms.

        Args:
            slopes: the loss's gradient of the features of the last batch, float32 [n, 100].
        """
        frame, groups, lanes = self._frame, self._groups, self._lanes
        places = frame["feature_slopes"][:groups]
        missing = groups * lanes - self._images
        if missing:
            slopes = torch.cat([slopes, slopes.new_zeros(missing, slopes.shape[1])])
        places.copy_(slopes.view(groups, lanes, -1).transpose(1, 2))
        self._crew.run(self._backward, frame, groups)
        self._write_gradients(places)

    def _reserve(self) -> None:
        frame, groups, layers, lanes = self._frame, self._most_groups, self._layers, self._lanes
        threads = self._crew.threads

        def floats(name: str, *shape: int) -> None:
            frame.place(name, torch.zeros(shape))

        def doubles(name: str, *shape: int) -> None:
            frame.place(name, torch.zeros(shape, dtype=torch.float64))

        frame.number("layers", layers)
        doubles("pixels", 1)
        floats("counts", groups)
        floats("masks", groups, lanes)
        floats("images", groups, WIDEN.input_vectors, lanes)
        floats("widened", groups, WIDEN.output_vectors, lanes)
        floats("activations", layers + 1, groups, PLANE, lanes)
        floats("features", groups, TAIL.output_vectors, lanes)
        floats("feature_slopes", groups, TAIL.output_vectors, lanes)
        floats("slopes", 2, groups, PLANE, lanes)
        floats("kept_slopes", groups, PLANE, lanes)
        floats("widened_slopes", threads, WIDEN.output_vectors, lanes)
        floats("scratch", threads, SCRATCH, lanes)
        floats("norm_sums", layers, groups, CHANNELS, 2)
        if self._has_norms:
            floats("convolved", layers, groups, PLANE, lanes)
            doubles("statistics", layers, groups, CHANNELS, 2)
            floats("norms", layers, 4, CHANNELS)
            floats("norm_gradients", layers, 5, CHANNELS)
        floats("widen_gradients", groups, WIDEN.weights)
        floats("halve_gradients", groups, HALVE.weights)
        floats("tail_gradients", groups, TAIL.weights)
        floats("inner_gradients", layers, groups, INNER.weights)
        floats("widen_bias_gradients", groups, CHANNELS)
        floats("halve_bias_gradients", groups, CHANNELS)

    def _set_batch(self, images: int) -> None:
        if images == self._images:
            return
        frame, lanes = self._frame, self._lanes
        groups = -(-images // lanes)
        if groups > self._most_groups:
            raise ValueError(f"a batch of {images} images is larger than was said")
        held = torch.arange(groups * lanes).view(groups, lanes) < images
        frame["masks"][:groups] = held.float()
        frame["counts"][:groups] = held.sum(dim=1).float()
        frame["pixels"].fill_(images * INNER.output_size**2)
        frame.number("groups", groups)
        self._images, self._groups = images, groups

    def _write_gradients(self, feature_slopes: Tensor) -> None:
        frame, groups, layers, to = self._frame, self._groups, self._layers, self.parameters
        for name in ("widen", "halve", "tail"):
            # The partial sums are added up in one order, whoever made them.
            total = frame[f"{name}_gradients"][:groups].sum(0)
            to.write_weight_gradient(name, total)
        for name in ("widen", "halve"):
            to.gradients[f"{name}_biases"].copy_(frame[f"{name}_bias_gradients"][:groups].sum(0))
        to.gradients["tail_biases"].copy_(feature_slopes.view(groups, 4, -1).sum((0, 2)))
        if layers:
            # A smaller batch uses the beginning of a field, its layers closer together.
            partial = frame["inner_gradients"].view(-1)[: layers * groups * INNER.weights]
            to.write_weight_gradient("inner", partial.view(layers, groups, -1).sum(1))
        if self._has_norms:
            to.gradients["norm_weights"].copy_(frame["norm_gradients"][:, 0])
            to.gradients["norm_biases"].copy_(frame["norm_gradients"][:, 1])
        elif layers:
            partial = frame["norm_sums"].view(-1)[: layers * groups * CHANNELS * 2]
            sums = partial.view(layers, groups, CHANNELS, 2)[..., 0].sum(1)
            to.gradients["inner_biases"].copy_(sums)
        to.attach_gradients()


class InferenceStack:
    """From pixels to features, in evaluation mode, for whole splits."""

    def __init__(self, network: BlockNetwork, crew: Crew, isa: InstructionSet) -> None:
        self._lanes = isa.lanes
        passes = inference_pass(network.architecture.skip, self._lanes, isa)
        self._infer = passes.function("infer")
        self._crew = crew
        self._frame = TensorFrame()
        self._frame.number("layers", network.architecture.inner_convolutions)
        self._frame.place("widened", torch.zeros(crew.threads, WIDEN.output_vectors, self._lanes))
        self._frame.place("activations", torch.zeros(crew.threads, 2, PLANE, self._lanes))
        self._groups = 0

    @torch.no_grad()
    def load(self, parameters: StackParameters) -> None:
        """Takes over the present parameters, the batch norms folded into the convolutions."""
        parameters.read(self._frame)
        parameters.fold(self._frame)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Returns the features, float32 [n, 100], of pixels, uint8 [n, 32, 32, 3]."""
        groups = -(-len(pixels) // self._lanes)
        if groups != self._groups:
            self._groups = groups
            self._frame.number("groups", groups)
            self._frame.place("images", torch.zeros(groups, WIDEN.input_vectors, self._lanes))
            self._frame.place("features", torch.zeros(groups, TAIL.output_vectors, self._lanes))
        into_lanes(pixels, self._frame["images"])
        self._crew.run(self._infer, self._frame, groups)
        return from_lanes(self._frame["features"], len(pixels))


def into_lanes(pixels: Tensor, lanes: Tensor) -> None:
    """Scales pixels, uint8 [n, 32, 32, 3], to [-1, 1], [groups][3][32][32] of lanes."""
    groups, _, width = lanes.shape
    missing = groups * width - len(pixels)
    if missing:
        pixels = torch.cat([pixels, pixels.new_zeros(missing, *pixels.shape[1:])])
    turned = pixels.view(groups, width, 32 * 32, 3).permute(0, 3, 2, 1).contiguous()
    lanes.copy_(turned.view(groups, -1, width))
    lanes.div_(127.5).sub_(1.0)


def from_lanes(features: Tensor, images: int) -> Tensor:
    """[groups][channels x size x size] of lanes as float32 [n, channels x size x size]."""
    return features.transpose(1, 2).reshape(-1, features.shape[1])[:images]
