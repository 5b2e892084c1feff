"""Runs the convolutions of a network with compiled kernels, in training and evaluation."""

from functools import cache

import torch
from llvmlite import ir
from torch import Tensor

from leadline.models._shapes import CHANNELS, HALVE, INNER, TAIL, WIDEN
from leadline.models.network import BlockNetwork
from leadline.models.simd.backward_pass import emit_backward_pass
from leadline.models.simd.compiler import Compiled
from leadline.models.simd.fields import (
    AREA,
    HALVE_LAYER,
    INNER_LAYER,
    PLANE,
    SCRATCH,
    TAIL_LAYER,
    WIDEN_LAYER,
    Field,
)
from leadline.models.simd.forward_pass import emit_forward_pass, emit_inference_pass
from leadline.models.simd.instruction_set import InstructionSet
from leadline.models.simd.parameters import StackParameters
from leadline.models.simd.signatures import Kind
from leadline.models.simd.tensor_args import TensorArgs
from leadline.models.simd.thread_team import ThreadTeam


@cache
def _training_passes(batch_norm: bool, skip: int, isa: InstructionSet) -> Compiled:
    lanes = isa.lanes

    def emit(module: ir.Module) -> None:
        emit_forward_pass(module, batch_norm=batch_norm, skip=skip, lanes=lanes)
        emit_backward_pass(module, batch_norm=batch_norm, skip=skip, lanes=lanes)

    return Compiled(f"training {batch_norm=} {skip=}", emit, isa)


@cache
def _evaluation_pass(skip: int, isa: InstructionSet) -> Compiled:
    def emit(module: ir.Module) -> None:
        emit_inference_pass(module, skip=skip, lanes=isa.lanes, reads_bytes=True)

    return Compiled(f"evaluation {skip=}", emit, isa)


class TrainingStack:
    """The layers up to the features, forward and backward, for training steps.

    The result is the same, to the bit, with any number of threads.

    A bias before a batch norm has no effect, because the norm subtracts the mean. Its
    gradient is zero here, and a rounding error with torch.

    Each step reads the network's parameters, writes its gradients and updates the batch
    norms' running statistics. They share storage, and must not be moved.

    Raises:
        UnsupportedNetworkError: the network has other shapes than the kernels.
    """

    def __init__(
        self, network: BlockNetwork, largest_batch: int, team: ThreadTeam, isa: InstructionSet
    ) -> None:
        architecture = network.architecture
        self.parameters = StackParameters(network)
        self._lanes = isa.lanes
        self._compiled = _training_passes(architecture.batch_norm, architecture.skip, isa)
        self._forward, self._backward = map(self._compiled.function, ("forward", "backward"))
        self._team = team
        self._layers = architecture.inner_convolutions
        self._has_norms = architecture.batch_norm and self._layers > 0
        self._most_groups = -(-largest_batch // self._lanes)
        self._args = TensorArgs()
        self._images = 0
        self._groups = 0
        self._allocate()

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Returns the features, float32 [n, 100], of pixels, uint8 [n, 32, 32, 3]."""
        self._set_batch(len(pixels))
        args = self._args
        args.set_tensor(Field.RGB, _padded(pixels, self._groups * self._lanes))
        self.parameters.write_to(args)
        self.parameters.write_transposed_to(args)
        self._team.run(self._forward, args, self._groups)
        if self._has_norms:
            self.parameters.track(args[Field.NORMS], self._images * AREA)
        return _from_lanes(args[Field.FEATURES][: self._groups], self._images)

    @torch.no_grad()
    def backward(self, grad_features: Tensor) -> None:
        """Sets the gradients of the convolutions and batch norms.

        Args:
            grad_features: the gradient of the loss with respect to the features of the
                last batch, float32 [n, 100].
        """
        groups, lanes = self._groups, self._lanes
        places = self._args[Field.GRAD_FEATURES][:groups]
        grad_features = _padded(grad_features, groups * lanes)
        places.copy_(grad_features.view(groups, lanes, -1).transpose(1, 2))
        self._team.run(self._backward, self._args, groups)
        self._set_gradients(places)

    def _allocate(self) -> None:
        args, groups, layers, lanes = self._args, self._most_groups, self._layers, self._lanes
        threads = self._team.threads

        def zeros(field: Field, *shape: int) -> None:
            dtype = torch.float64 if field.kind is Kind.DOUBLES else torch.float32
            args.set_tensor(field, torch.zeros(shape, dtype=dtype))

        args.set_number(Field.LAYERS, layers)
        zeros(Field.PIXELS, 1)
        zeros(Field.COUNTS, groups)
        zeros(Field.MASKS, groups, lanes)
        zeros(Field.IMAGES, groups, WIDEN.input_vectors, lanes)
        zeros(Field.WIDENED, groups, WIDEN.output_vectors, lanes)
        zeros(Field.ACTIVATIONS, layers + 1, groups, PLANE, lanes)
        zeros(Field.FEATURES, groups, TAIL.output_vectors, lanes)
        zeros(Field.GRAD_FEATURES, groups, TAIL.output_vectors, lanes)
        zeros(Field.GRAD_OUTPUT, 2, groups, PLANE, lanes)
        zeros(Field.GRAD_SKIP, groups, PLANE, lanes)
        zeros(Field.GRAD_WIDENED, threads, WIDEN.output_vectors, lanes)
        zeros(Field.SCRATCH, threads, SCRATCH, lanes)
        zeros(Field.NORM_SUMS, layers, groups, CHANNELS, 2)
        if self._has_norms:
            zeros(Field.CONVOLVED, layers, groups, PLANE, lanes)
            zeros(Field.STATISTICS, layers, groups, CHANNELS, 2)
            zeros(Field.NORMS, layers, 4, CHANNELS)
            zeros(Field.NORM_GRADIENTS, layers, 5, CHANNELS)
        zeros(Field.GRAD_WIDEN_WEIGHTS, groups, WIDEN.weights)
        zeros(Field.GRAD_HALVE_WEIGHTS, groups, HALVE.weights)
        zeros(Field.GRAD_TAIL_WEIGHTS, groups, TAIL.weights)
        zeros(Field.GRAD_INNER_WEIGHTS, layers, groups, INNER.weights)
        zeros(Field.GRAD_WIDEN_BIASES, groups, CHANNELS)
        zeros(Field.GRAD_HALVE_BIASES, groups, CHANNELS)

    def _set_batch(self, images: int) -> None:
        if images == self._images:
            return
        args, lanes = self._args, self._lanes
        groups = -(-images // lanes)
        if groups > self._most_groups:
            most = self._most_groups * lanes
            raise ValueError(f"a batch of {images} images exceeds the largest batch, {most}")
        held = torch.arange(groups * lanes).view(groups, lanes) < images
        args[Field.MASKS][:groups] = held.float()
        args[Field.COUNTS][:groups] = held.sum(dim=1).float()
        args[Field.PIXELS].fill_(images * AREA)
        args.set_number(Field.GROUPS, groups)
        self._images, self._groups = images, groups

    def _set_gradients(self, grad_features: Tensor) -> None:
        args, groups, gradients = self._args, self._groups, self.parameters.gradients
        # The groups' sums are added in a fixed order: the number of threads does not matter.
        for layer in (WIDEN_LAYER, HALVE_LAYER, TAIL_LAYER):
            total = args[layer.grad_weights][:groups].sum(0)
            self.parameters.set_weight_gradient(layer, total)
        gradients[Field.WIDEN_BIASES].copy_(args[Field.GRAD_WIDEN_BIASES][:groups].sum(0))
        gradients[Field.HALVE_BIASES].copy_(args[Field.GRAD_HALVE_BIASES][:groups].sum(0))
        by_channel = grad_features.view(groups, TAIL.outputs, -1)
        gradients[Field.TAIL_BIASES].copy_(by_channel.sum((0, 2)))
        if self._layers:
            self._set_inner_gradients()
        self.parameters.attach_gradients()

    def _set_inner_gradients(self) -> None:
        args, groups, gradients = self._args, self._groups, self.parameters.gradients

        def by_group(field: Field, numbers: int) -> Tensor:
            """Returns [layers, groups, numbers]; a smaller batch uses the start of a field only."""
            used = args[field].view(-1)[: self._layers * groups * numbers]
            return used.view(self._layers, groups, numbers)

        total = by_group(Field.GRAD_INNER_WEIGHTS, INNER.weights).sum(1)
        self.parameters.set_weight_gradient(INNER_LAYER, total)
        if self._has_norms:
            gradients[Field.NORM_WEIGHTS].copy_(args[Field.NORM_GRADIENTS][:, 0])
            gradients[Field.NORM_BIASES].copy_(args[Field.NORM_GRADIENTS][:, 1])
        else:
            sums = by_group(Field.NORM_SUMS, CHANNELS * 2)
            by_channel = sums.view(self._layers, groups, CHANNELS, 2)[..., 0]
            gradients[Field.INNER_BIASES].copy_(by_channel.sum(1))


class InferenceStack:
    """The layers up to the features in evaluation mode, for whole splits."""

    def __init__(self, network: BlockNetwork, team: ThreadTeam, isa: InstructionSet) -> None:
        self._lanes = isa.lanes
        self._infer = _evaluation_pass(network.architecture.skip, isa).function("infer")
        self._team = team
        self._args = args = TensorArgs()
        args.set_number(Field.LAYERS, network.architecture.inner_convolutions)
        for field, *shape in (
            (Field.IMAGES, WIDEN.input_vectors),
            (Field.WIDENED, WIDEN.output_vectors),
            (Field.ACTIVATIONS, 2, PLANE),
        ):
            args.set_tensor(field, torch.zeros(team.threads, *shape, self._lanes))
        self._groups = 0

    @torch.no_grad()
    def load(self, parameters: StackParameters) -> None:
        """Loads the current parameters, with the batch norms folded into the convolutions."""
        parameters.write_to(self._args)
        parameters.fold(self._args)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Returns the features, float32 [n, 100], of pixels, uint8 [n, 32, 32, 3]."""
        args, groups = self._args, -(-len(pixels) // self._lanes)
        if groups != self._groups:
            self._groups = groups
            args.set_number(Field.GROUPS, groups)
            args.set_tensor(Field.FEATURES, torch.zeros(groups, TAIL.output_vectors, self._lanes))
        args.set_tensor(Field.RGB, _padded(pixels, groups * self._lanes))
        self._team.run(self._infer, args, groups)
        return _from_lanes(args[Field.FEATURES], len(pixels))


def _padded(batch: Tensor, length: int) -> Tensor:
    """Appends zeros to a batch, [n, ...], so that every lane of every group has numbers."""
    missing = length - len(batch)
    return torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]) if missing else batch


def _from_lanes(features: Tensor, images: int) -> Tensor:
    """Returns [groups, channels x size x size, lanes] as [n, channels x size x size]."""
    return features.transpose(1, 2).reshape(-1, features.shape[1])[:images]
