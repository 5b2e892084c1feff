"""Convolutions of few channels, for a group of `lanes` images at once.

The layout is batch-blocked, NCHW16n in oneDNN's terms (8n with AVX2, 4n in the
baseline): a group of images is [channel][row][column][lane]. A vector register
holds one pixel of one channel of every image in the group, so a weight is the same
number for all lanes. Eight channels give eight independent sums, enough to keep two
multiply-adds a cycle in flight; channels are never padded and lanes never shuffled.
"""

import itertools
from collections.abc import Sequence

from llvmlite import ir

from leadline.models._shapes import Convolution
from leadline.models.simd.emitter import Emitter, const
from leadline.models.simd.signatures import Kernel, KernelSignature, Kind, Value


def emit_convolution(
    module: ir.Module, name: str, shape: Convolution, *, lanes: int, add: bool, relu: bool
) -> Kernel:
    """Writes a kernel that convolves one group, and optionally adds to it and takes the ReLU."""
    signature = KernelSignature(
        images=Kind.VECTORS,  # [inputs][size][size]
        weights=Kind.FLOATS,  # [kernel][kernel][inputs][outputs]
        biases=Kind.FLOATS,  # [outputs]
        addend=Kind.VECTORS if add else None,  # like the result
        result=Kind.VECTORS,  # [outputs][output_size][output_size]
    )
    code = Emitter(module, name, signature, lanes=lanes)
    args, size = code.arguments, shape.size

    def at_pixel(indices: Sequence[Value], _: object) -> None:
        top, left = (_corner(code, index, shape) for index in indices)

        def at_tap(tap: Sequence[Value], sums: list[Value]) -> list[Value]:
            row, column = code.builder.add(top, tap[0]), code.builder.add(left, tap[1])
            pixel = code.at(args.images, code.offset((row, size), (column, 1)))
            weights = code.at(args.weights, _weights_offset(code, tap, shape))
            return _accumulate(code, pixel, weights, sums, channels=shape.inputs, area=size**2)

        sums = [code.splat(code.load(args.biases, channel)) for channel in range(shape.outputs)]
        window = [_within(code, corner, shape) for corner in (top, left)]
        sums = code.loop_nest(window, at_tap, sums)
        pixel = code.offset((indices[0], shape.output_size), (indices[1], 1))
        for channel, value in enumerate(sums):
            place = code.builder.add(pixel, const(channel * shape.output_size**2))
            result = code.builder.fadd(value, code.load(args.addend, place)) if add else value
            code.store(code.relu(result) if relu else result, args.result, place)

    code.loop_nest([(0, shape.output_size)] * 2, at_pixel)
    return code.close()


def emit_input_gradient(
    module: ir.Module, name: str, shape: Convolution, *, lanes: int, add: bool
) -> Kernel:
    """Writes a kernel that computes a convolution's input gradient from its output gradient."""
    signature = KernelSignature(
        grad_output=Kind.VECTORS,  # [outputs][output_size][output_size]
        weights=Kind.FLOATS,  # transposed, [kernel][kernel][outputs][inputs]
        addend=Kind.VECTORS if add else None,  # like the result
        result=Kind.VECTORS,  # [inputs][size][size]
    )
    code = Emitter(module, name, signature, lanes=lanes)
    args, size = code.arguments, shape.output_size

    def at_pixel(indices: Sequence[Value], _: object) -> None:
        padded = [code.builder.add(index, const(shape.padding)) for index in indices]

        def at_tap(tap: Sequence[Value], sums: list[Value]) -> list[Value]:
            row, column = (
                code.builder.sdiv(code.builder.sub(*pair), const(shape.stride))
                for pair in zip(padded, tap, strict=True)
            )
            pixel = code.at(args.grad_output, code.offset((row, size), (column, 1)))
            weights = code.at(args.weights, _weights_offset(code, tap, shape))
            return _accumulate(code, pixel, weights, sums, channels=shape.outputs, area=size**2)

        taps = [_taps_that_met(code, place, shape) for place in padded]
        sums = code.loop_nest(taps, at_tap, [code.zero()] * shape.inputs)
        pixel = code.offset((indices[0], shape.size), (indices[1], 1))
        for channel, value in enumerate(sums):
            place = code.builder.add(pixel, const(channel * shape.size**2))
            result = code.builder.fadd(value, code.load(args.addend, place)) if add else value
            code.store(result, args.result, place)

    code.loop_nest([(0, shape.size)] * 2, at_pixel)
    return code.close()


def emit_weight_gradient(
    module: ir.Module, name: str, shape: Convolution, *, lanes: int, input_block: int
) -> Kernel:
    """Writes a kernel that computes the gradient of the weights from one group.

    Keeps the sums of `input_block` input channels and all output channels in
    registers along a row, and in the scratch between rows.
    """
    signature = KernelSignature(
        images=Kind.VECTORS,  # [inputs][size][size]
        grad_output=Kind.VECTORS,  # [outputs][output_size][output_size]
        scratch=Kind.VECTORS,  # [weights]
        result=Kind.FLOATS,  # [kernel][kernel][inputs][outputs]
    )
    code = Emitter(module, name, signature, lanes=lanes)
    args = code.arguments

    def clear(index: Value, _: object) -> None:
        code.store(code.zero(), args.scratch, index)

    def at_row(row: Value, _: object) -> None:
        top = _corner(code, row, shape)

        def at_tap(tap: Sequence[Value], _: object) -> None:
            image_row = code.builder.add(top, tap[0])
            for start in range(0, shape.inputs, input_block):
                channels = range(start, min(start + input_block, shape.inputs))
                _accumulate_row(code, shape, channels, rows=(row, image_row), tap=tap)

        code.loop_nest([_within(code, top, shape), (0, shape.kernel)], at_tap)

    def reduce(index: Value, _: object) -> None:
        code.store(code.total(code.load(args.scratch, index)), args.result, index)

    code.loop(const(0), const(shape.weights), clear)
    code.loop(const(0), const(shape.output_size), at_row)
    code.loop(const(0), const(shape.weights), reduce)
    return code.close()


def _accumulate_row(
    code: Emitter,
    shape: Convolution,
    channels: range,
    *,
    rows: tuple[Value, Value],
    tap: Sequence[Value],
) -> None:
    """Adds a row's contribution to the gradient of one tap's weights, in the scratch.

    `rows` are a row of the gradient and one of the image; `tap` is a position in the kernel.
    """
    args, outputs = code.arguments, shape.outputs
    left = code.builder.sub(tap[1], const(shape.padding))

    def at_column(column: Value, sums: list[Value]) -> list[Value]:
        image_column = code.builder.add(code.builder.mul(column, const(shape.stride)), left)
        pixel = code.at(args.images, code.offset((rows[1], shape.size), (image_column, 1)))
        grads = code.at(args.grad_output, code.offset((rows[0], shape.output_size), (column, 1)))
        gradients = [code.load(grads, number * shape.output_size**2) for number in range(outputs)]
        values = [code.load(pixel, channel * shape.size**2) for channel in channels]
        pairs = itertools.product(values, gradients)
        return [code.fma(*pair, total) for pair, total in zip(pairs, sums, strict=True)]

    place = code.builder.add(_weights_offset(code, tap, shape), const(channels[0] * outputs))
    block = code.at(args.scratch, place)
    sums = [code.load(block, index) for index in range(len(channels) * outputs)]
    for index, value in enumerate(code.loop(*_columns(code, left, shape), at_column, sums)):
        code.store(value, block, index)


def _accumulate(
    code: Emitter, pixel: Value, weights: Value, sums: list[Value], *, channels: int, area: int
) -> list[Value]:
    """Adds each channel of a pixel times its weight to each sum.

    `area` vectors lie between two channels of a pixel.
    """
    sums = list(sums)
    for channel in range(channels):
        value = code.load(pixel, channel * area)
        for number, total in enumerate(sums):
            factor = code.splat(code.load(weights, channel * len(sums) + number))
            sums[number] = code.fma(value, factor, total)
    return sums


def _corner(code: Emitter, index: Value, shape: Convolution) -> Value:
    """The row or column of the image at which a result's window begins."""
    return code.builder.sub(code.builder.mul(index, const(shape.stride)), const(shape.padding))


def _weights_offset(code: Emitter, tap: Sequence[Value], shape: Convolution) -> Value:
    """The offset of the weights of a tap, a row and a column of the kernel."""
    channels = shape.inputs * shape.outputs
    return code.offset((tap[0], shape.kernel * channels), (tap[1], channels))


def _within(code: Emitter, corner: Value, shape: Convolution) -> tuple[Value, Value]:
    """The range of the kernel's rows or columns inside the image, for a window at `corner`."""
    first = code.largest(const(0), code.builder.sub(const(0), corner))
    left = code.builder.sub(const(shape.size), corner)
    return first, code.smallest(const(shape.kernel), left)


def _taps_that_met(code: Emitter, padded: Value, shape: Convolution) -> tuple[Value, Value, Value]:
    """The kernel's rows or columns that were applied to a row or column of the padded image."""
    stride = const(shape.stride)
    first = code.builder.srem(padded, stride)
    in_last_window = code.builder.sub(padded, const(shape.stride * (shape.output_size - 1)))
    first = code.largest(first, in_last_window)
    return first, code.smallest(const(shape.kernel), code.builder.add(padded, const(1))), stride


def _columns(code: Emitter, left: Value, shape: Convolution) -> tuple[Value, Value]:
    """The range of result columns to which a column of the kernel contributes."""
    stride = const(shape.stride)
    behind = code.largest(const(0), code.builder.sub(const(0), left))
    first = code.builder.sdiv(code.builder.add(behind, const(shape.stride - 1)), stride)
    room = code.builder.sub(const(shape.size - 1), left)
    last = code.builder.add(code.builder.sdiv(room, stride), const(1))
    return first, code.smallest(const(shape.output_size), last)
