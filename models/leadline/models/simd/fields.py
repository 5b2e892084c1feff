# ruff: noqa: PIE796 - fields of one kind are different fields: `__new__` numbers them
"""The fields of the argument block that entry points read: see `KernelArgs`."""

from enum import Enum
from typing import NamedTuple, Self

from leadline.models._shapes import HALVE, INNER, TAIL, WIDEN, Convolution
from leadline.models.simd.signatures import Kind

AREA = INNER.output_size**2
"""Pixels of a channel inside the blocks."""

PLANE = INNER.output_vectors
"""Vectors of a group's activations inside the blocks, over all channels."""

SCRATCH = max(WIDEN.weights, HALVE.weights)
"""Vectors in which a thread sums the gradient of a layer's weights."""


class Field(Enum):
    """A number or the address of an array, 8 bytes each; members are in memory order.

    A vector holds one number for each image of a group. Weights are float
    [kernel][kernel][inputs][outputs]; transposed weights [kernel][kernel][outputs][inputs].
    """

    kind: Kind
    index: int

    def __new__(cls, kind: Kind) -> Self:
        """Numbers the fields."""
        field = object.__new__(cls)
        field._value_ = field.index = len(cls.__members__)
        field.kind = kind
        return field

    __hash__ = object.__hash__  # in C; members are singletons

    GROUPS = Kind.INTEGER
    LAYERS = Kind.INTEGER  # convolutions inside the blocks
    BARRIER = Kind.INTEGERS  # arrivals at the barrier
    COUNTS = Kind.FLOATS  # [groups]: images in each
    MASKS = Kind.VECTORS  # [groups]: one where a lane holds an image, else zero
    PIXELS = Kind.DOUBLES  # numbers in a channel of the batch, inside the blocks
    # Parameters.
    WIDEN_WEIGHTS = Kind.FLOATS
    WIDEN_BIASES = Kind.FLOATS
    HALVE_WEIGHTS = Kind.FLOATS
    HALVE_BIASES = Kind.FLOATS
    INNER_WEIGHTS = Kind.FLOATS  # [layers]...
    INNER_BIASES = Kind.FLOATS
    TAIL_WEIGHTS = Kind.FLOATS
    TAIL_BIASES = Kind.FLOATS
    HALVE_TRANSPOSED = Kind.FLOATS
    INNER_TRANSPOSED = Kind.FLOATS  # [layers]...
    TAIL_TRANSPOSED = Kind.FLOATS
    NORM_WEIGHTS = Kind.FLOATS  # [layers][8]
    NORM_BIASES = Kind.FLOATS
    # Activations and statistics.
    RGB = Kind.BYTES  # [groups][lanes][32][32][3]: the pixels of each image
    IMAGES = Kind.VECTORS  # training, serving: [groups][3][32][32], evaluation: [threads]...
    WIDENED = Kind.VECTORS  # training: [groups][8][28][28], inference: [threads][8][28][28]
    ACTIVATIONS = Kind.VECTORS  # training: [layers + 1][groups][8][12][12], inference: [threads][2]
    CONVOLVED = Kind.VECTORS  # [layers][groups][8][12][12]: inputs of batch norms
    FEATURES = Kind.VECTORS  # [groups][4][5][5]
    STATISTICS = Kind.DOUBLES  # [layers][groups][8][2]
    NORMS = Kind.FLOATS  # [layers][4][8]: mean, biased variance, scale, shift
    # Gradients of the loss.
    GRAD_FEATURES = Kind.VECTORS  # [groups][4][5][5]
    GRAD_OUTPUT = Kind.VECTORS  # [2][groups][8][12][12]: two buffers, which layers alternate
    GRAD_SKIP = Kind.VECTORS  # [groups][8][12][12]: on an identity connection
    GRAD_WIDENED = Kind.VECTORS  # [threads][8][28][28]
    SCRATCH = Kind.VECTORS  # [threads][SCRATCH]
    NORM_SUMS = Kind.FLOATS  # [layers][groups][8][2]; without batch norms the biases' gradients
    NORM_GRADIENTS = Kind.FLOATS  # [layers][5][8]
    GRAD_WIDEN_WEIGHTS = Kind.FLOATS  # [groups]..., as are all that follow
    GRAD_WIDEN_BIASES = Kind.FLOATS
    GRAD_HALVE_WEIGHTS = Kind.FLOATS
    GRAD_HALVE_BIASES = Kind.FLOATS
    GRAD_INNER_WEIGHTS = Kind.FLOATS  # [layers][groups]...
    GRAD_TAIL_WEIGHTS = Kind.FLOATS
    # One image, with its channels in the lanes: see `single`.
    SINGLE_IMAGE = Kind.FLOATS  # [32][32][3]
    SINGLE_WIDENED = Kind.VECTORS  # [28][28]
    SINGLE_ACTIVATIONS = Kind.VECTORS  # [2][14][14], with a border of zeros
    SINGLE_FEATURES = Kind.VECTORS  # [5][5], the tail's 4 channels and zeros


class Layer(NamedTuple):
    """A convolution, and the fields of its parameters."""

    shape: Convolution
    weights: Field
    biases: Field
    grad_weights: Field


WIDEN_LAYER = Layer(WIDEN, Field.WIDEN_WEIGHTS, Field.WIDEN_BIASES, Field.GRAD_WIDEN_WEIGHTS)
HALVE_LAYER = Layer(HALVE, Field.HALVE_WEIGHTS, Field.HALVE_BIASES, Field.GRAD_HALVE_WEIGHTS)
INNER_LAYER = Layer(INNER, Field.INNER_WEIGHTS, Field.INNER_BIASES, Field.GRAD_INNER_WEIGHTS)
TAIL_LAYER = Layer(TAIL, Field.TAIL_WEIGHTS, Field.TAIL_BIASES, Field.GRAD_TAIL_WEIGHTS)

TRANSPOSED = {
    HALVE_LAYER: Field.HALVE_TRANSPOSED,
    INNER_LAYER: Field.INNER_TRANSPOSED,
    TAIL_LAYER: Field.TAIL_TRANSPOSED,
}
"""Weights for the gradient of a layer's input; the images need no gradient."""
