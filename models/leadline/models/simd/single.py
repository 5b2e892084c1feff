"""Inference for one image, whose channels fill the lanes of a vector.

A group fills the lanes with images, which a single image cannot. Instead it is laid
out as [row][column][channel], and the 8 output channels of a convolution are one
vector.

`Field` gives the layouts of the activations. Weights are read as vectors
[kernel][kernel][inputs], from the same memory as for groups. A border of zeros
between the blocks replaces the padding, so kernels need no checks for edges.
"""

from collections.abc import Sequence

from llvmlite import ir

from leadline.models._shapes import CHANNELS, HALVE, INNER, TAIL, WIDEN, Convolution
from leadline.models.simd.emitter import Emitter, const
from leadline.models.simd.fields import (
    HALVE_LAYER,
    TAIL_LAYER,
    WIDEN_LAYER,
    Field,
)
from leadline.models.simd.kernel_builder import KernelBuilder
from leadline.models.simd.signatures import Kernel, KernelSignature, Kind, Value

LANES = CHANNELS

PITCH = INNER.size + 2
"""Vectors in a row of the activations inside the blocks, including the border."""

BORDERED = PITCH**2
"""Vectors in the activations inside the blocks, including the border."""

_CORNER = PITCH + 1
"""The offset of the first pixel inside the border."""

# A row is computed in tiles of at most this many columns, whose sums fill the registers.
_LARGEST_TILE = 14


def emit_single_pass(module: ir.Module, *, skip: int) -> None:
    """Writes `infer_one(args, thread, threads)`: from one image to features, batch norms folded."""
    widen = emit_convolution(module, "_widen", WIDEN, pitch=WIDEN.size, to=WIDEN.output_size)
    halve = emit_convolution(module, "_halve", HALVE, pitch=HALVE.size, to=PITCH)
    inner = {
        add: emit_convolution(
            module, f"_inner_{add}", INNER, pitch=PITCH, to=PITCH, add=add, relu=True
        )
        for add in sorted({False, skip > 0})
    }
    tail = emit_convolution(module, "_tail", TAIL, pitch=PITCH, to=TAIL.output_size)
    run = KernelBuilder(module, "infer_one", lanes=LANES)
    image, widened = run.address(Field.SINGLE_IMAGE), run.address(Field.SINGLE_WIDENED)
    run.convolve(widen, WIDEN_LAYER, images=image, result=widened)
    image = run.address(Field.SINGLE_WIDENED, kind=Kind.FLOATS)
    run.convolve(halve, HALVE_LAYER, images=image, result=_inside(run, const(0)))
    run.convolve_blocks(
        skip, inner, lambda layer: _pixels(run, layer, 0), lambda layer: _inside(run, layer)
    )
    image, features = _pixels(run, run.layers, _CORNER), run.address(Field.SINGLE_FEATURES)
    run.convolve(tail, TAIL_LAYER, images=image, result=features)
    run.code.close()


def _pixels(run: KernelBuilder, layer: Value, start: int) -> Value:
    """The input of a layer as floats; layers alternate between two buffers."""
    place = (run.code.is_odd(layer), BORDERED * LANES), (const(start), LANES)
    return run.address(Field.SINGLE_ACTIVATIONS, *place, kind=Kind.FLOATS)


def _inside(run: KernelBuilder, layer: Value) -> Value:
    """The input of a layer as vectors, from the first pixel inside the border."""
    place = (run.code.is_odd(layer), BORDERED), (const(_CORNER), 1)
    return run.address(Field.SINGLE_ACTIVATIONS, *place)


def emit_convolution(
    module: ir.Module,
    name: str,
    shape: Convolution,
    *,
    pitch: int,
    to: int,
    add: bool = False,
    relu: bool = False,
) -> Kernel:
    """Writes a kernel that convolves an image that has its border in memory."""
    signature = KernelSignature(
        images=Kind.FLOATS,  # one: [...][pitch][inputs]
        weights=Kind.VECTORS,  # [kernel][kernel][inputs]
        biases=Kind.VECTORS,  # one
        addend=Kind.VECTORS if add else None,  # like the result
        result=Kind.VECTORS,  # [...][to]
    )
    code = Emitter(module, name, signature, lanes=LANES)
    args, tile = code.arguments, _column_tile(shape)

    def at_tile(indices: Sequence[Value], _: object) -> None:
        row, first = indices

        def at_tap(tap: Sequence[Value], sums: list[Value]) -> list[Value]:
            place = code.offset(
                (row, shape.stride * pitch * shape.inputs),
                (tap[0], pitch * shape.inputs),
                (first, shape.stride * shape.inputs),
                (tap[1], shape.inputs),
            )
            factors = code.offset((tap[0], shape.kernel * shape.inputs), (tap[1], shape.inputs))
            image, weights = code.at(args.images, place), code.at(args.weights, factors)
            return _accumulate(code, image, weights, sums, shape=shape)

        sums = [code.load(args.biases)] * tile
        sums = code.loop_nest([(0, shape.kernel)] * 2, at_tap, sums)
        for column, value in enumerate(sums):
            place = code.offset((row, to), (first, 1), (const(column), 1))
            result = code.builder.fadd(value, code.load(args.addend, place)) if add else value
            code.store(code.relu(result) if relu else result, args.result, place)

    code.loop_nest([(0, shape.output_size), (0, shape.output_size, tile)], at_tile)
    return code.close()


def _column_tile(shape: Convolution) -> int:
    """The most columns that divide a row into equal tiles."""
    return max(tile for tile in range(1, _LARGEST_TILE + 1) if shape.output_size % tile == 0)


def _accumulate(
    code: Emitter, image: Value, weights: Value, sums: list[Value], *, shape: Convolution
) -> list[Value]:
    """Adds the products of each column's pixel with the weights to the column's sum."""
    sums = list(sums)
    for channel in range(shape.inputs):
        factors = code.load(weights, channel)
        for column, total in enumerate(sums):
            pixel = code.load(image, column * shape.stride * shape.inputs + channel)
            sums[column] = code.fma(code.splat(pixel), factors, total)
    return sums
