"""Inference for one image, whose channels lie in the lanes of a vector.

Groups of images fill the lanes with images, which one image alone cannot. Its
channels can: an image lies as [row][column][channel], and the 8 channels that
come out of a convolution are one vector.

What a frame's fields hold differs from what the passes over groups find there:
`images` is float [32][32][3], `widened` [28][28] vectors, `activations` two times
[14][14] vectors whose border is zero, `features` [5][5] vectors of which the
first 4 lanes count, weights [kernel][kernel][inputs] vectors.
"""

from llvmlite import ir

from leadline.models.simd.convolutions import Convolution
from leadline.models.simd.elementwise import CHANNELS
from leadline.models.simd.emitter import F32, Emitter, Value, const
from leadline.models.simd.passes import HALVE, INNER, TAIL, WIDEN, Pass, Position

LANES = CHANNELS

PITCH = INNER.size + 2
"""Vectors in a row between the blocks, with those of the border."""

BORDERED = PITCH**2
"""Vectors between the blocks."""

_CORNER = PITCH + 1
"""Where the image begins inside of its border."""

# Columns whose sums fill the registers, a divisor of the columns of each.
_AT_ONCE = {WIDEN: 14, HALVE: 12, INNER: 12, TAIL: 5}


def emit_single_pass(module: ir.Module, *, skip: int) -> None:
    """Writes `infer_one(frame, thread, threads)`: from an image to features, batch norms folded.

    Args:
        module: where the function goes.
        skip: convolutions that an identity connection spans; 0 without such connections.
    """
    widen = _emit_convolution(module, "_widen", WIDEN, pitch=WIDEN.size, to=WIDEN.output_size)
    halve = _emit_convolution(module, "_halve", HALVE, pitch=HALVE.size, to=PITCH)
    inner = {
        add: _emit_convolution(module, f"_inner_{add}", INNER, pitch=PITCH, to=PITCH, add=add)
        for add in {False, skip > 0}
    }
    tail = _emit_convolution(module, "_tail", TAIL, pitch=PITCH, to=TAIL.output_size)
    run = Pass(module, "infer_one", lanes=LANES)
    code = run.code

    def parameters(name: str) -> list[Value]:
        return [run.vectors(f"{name}_weights"), run.vectors(f"{name}_biases")]

    # Layers read and write two places in turn.
    def floats(layer: Value, start: int) -> Value:
        place = (code.is_odd(layer), BORDERED * LANES)
        return run.floats("activations", place, (const(start), LANES))

    def inside(layer: Value) -> Value:
        return run.vectors("activations", (code.is_odd(layer), BORDERED), (const(_CORNER), 1))

    def at_layer(layer: Value, position: Position) -> None:
        skipped = inside(code.builder.sub(layer, const(skip - 1)))
        code.call(
            inner[position.ends_skip],
            floats(layer, 0),
            run.vectors("inner_weights", (layer, INNER.weights // CHANNELS)),
            run.vectors("inner_biases", (layer, 1)),
            # With a skip of two it is read where the result then overwrites it.
            *([skipped] if position.ends_skip else []),
            inside(code.builder.add(layer, const(1))),
        )

    code.call(widen, run.floats("images"), *parameters("widen"), run.vectors("widened"))
    code.call(halve, run.floats("widened"), *parameters("halve"), inside(const(0)))
    run.each_layer(skip, at_layer)
    code.call(tail, floats(run.layers, _CORNER), *parameters("tail"), run.vectors("features"))
    code.close()


def _emit_convolution(
    module: ir.Module,
    name: str,
    shape: Convolution,
    *,
    pitch: int,
    to: int,
    add: bool = False,
) -> ir.Function:
    """Writes a function that convolves an image, without looking for its border.

    Its arguments: the image, float [...][pitch][inputs]; weights, vectors
    [kernel][kernel][inputs]; biases, a vector; with `add` what is added to the result;
    the result, vectors [...][to]. Between the blocks a ReLU follows.
    """
    vectors = ir.VectorType(F32, LANES).as_pointer()
    kinds = [F32.as_pointer(), vectors, vectors, *([vectors] if add else []), vectors]
    code = Emitter(module, name, kinds, lanes=LANES)
    image, weights, biases, *addends, results = code.arguments
    at_once = _AT_ONCE[shape]

    def at_columns(row: Value, first: Value) -> None:
        def at_tap(down: Value, right: Value, sums: list[Value]) -> list[Value]:
            place = code.offset(
                (row, shape.stride * pitch * shape.inputs),
                (down, pitch * shape.inputs),
                (first, shape.stride * shape.inputs),
                (right, shape.inputs),
            )
            factors = code.offset((down, shape.kernel * shape.inputs), (right, shape.inputs))
            return _accumulate(
                code, code.at(image, place), code.at(weights, factors), sums, shape=shape
            )

        def at_kernel_row(down: Value, sums: list[Value]) -> list[Value]:
            return code.loop(
                const(0), const(shape.kernel), lambda right, sums: at_tap(down, right, sums), sums
            )

        sums = [code.load(biases)] * at_once
        for column, value in enumerate(
            code.loop(const(0), const(shape.kernel), at_kernel_row, sums)
        ):
            place = code.offset((row, to), (first, 1), (const(column), 1))
            result = code.builder.fadd(value, code.load(addends[0], place)) if add else value
            code.store(code.relu(result) if shape == INNER else result, results, place)

    def at_row(row: Value, _: object) -> None:
        code.loop(
            const(0),
            const(shape.output_size),
            lambda first, _: at_columns(row, first),
            step=const(at_once),
        )

    code.loop(const(0), const(shape.output_size), at_row)
    return code.close()


def _accumulate(
    code: Emitter, image: Value, weights: Value, sums: list[Value], *, shape: Convolution
) -> list[Value]:
    """Adds each channel of each column's pixel, times its vector of weights, to its sum."""
    sums = list(sums)
    for channel in range(shape.inputs):
        factors = code.load(weights, channel)
        for column, total in enumerate(sums):
            pixel = code.load(image, column * shape.stride * shape.inputs + channel)
            sums[column] = code.fma(code.splat(pixel), factors, total)
    return sums
