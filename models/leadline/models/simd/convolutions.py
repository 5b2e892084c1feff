"""Convolutions of few channels, for `lanes` images at once.

A group of images lies as [channel][row][column][image], so that a register
holds one pixel of one channel of every image in the group, a weight is the
same number for all of its lanes, and 8 channels fill the registers that a
processor has: no padding of channels, no shuffling, two multiply-adds a cycle.
"""

import itertools
from dataclasses import dataclass

from llvmlite import ir

from leadline.models.simd.emitter import F32, Emitter, Value, const


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """The shape of a convolution of square images."""

    inputs: int
    """Channels that go in."""

    outputs: int
    """Channels that come out."""

    kernel: int
    """Rows and columns of the kernel."""

    stride: int = 1
    padding: int = 0

    size: int
    """Rows and columns of an image that goes in."""

    @property
    def output_size(self) -> int:
        """Rows and columns of an image that comes out."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def input_vectors(self) -> int:
        """Vectors that a group of images takes up."""
        return self.inputs * self.size**2

    @property
    def output_vectors(self) -> int:
        """Vectors that what comes out of a group takes up."""
        return self.outputs * self.output_size**2

    @property
    def weights(self) -> int:
        """Numbers in the kernels."""
        return self.inputs * self.outputs * self.kernel**2


def emit_forward(
    module: ir.Module, name: str, shape: Convolution, *, lanes: int, add: bool, relu: bool
) -> ir.Function:
    """Writes a function that convolves one group.

    Its arguments: images, vectors [inputs][size][size]; weights, float
    [kernel][kernel][inputs][outputs]; biases, float [outputs]; with `add` what is
    added to the result; the result, vectors [outputs][output_size][output_size].
    """
    vectors, floats = ir.VectorType(F32, lanes).as_pointer(), F32.as_pointer()
    kinds = [vectors, floats, floats, *([vectors] if add else []), vectors]
    code = Emitter(module, name, kinds, lanes=lanes)
    images, weights, biases, *addends, results = code.arguments
    size, kernel, area = shape.size, shape.kernel, shape.output_size**2

    def at_row(row: Value, _: object) -> None:
        top = code.builder.sub(code.builder.mul(row, const(shape.stride)), const(shape.padding))

        def at_column(column: Value, _: object) -> None:
            left = code.builder.sub(
                code.builder.mul(column, const(shape.stride)), const(shape.padding)
            )

            def at_kernel_row(down: Value, sums: list[Value]) -> list[Value]:
                def at_kernel_column(right: Value, sums: list[Value]) -> list[Value]:
                    pixel = code.at(
                        images,
                        code.offset(
                            (code.builder.add(top, down), size),
                            (code.builder.add(left, right), 1),
                        ),
                    )
                    factors = code.at(
                        weights,
                        code.offset(
                            (down, kernel * shape.inputs * shape.outputs),
                            (right, shape.inputs * shape.outputs),
                        ),
                    )
                    return _accumulate(
                        code, pixel, factors, sums, channels=shape.inputs, area=size**2
                    )

                return code.loop(*_within(code, left, size, kernel), at_kernel_column, sums)

            sums = [code.splat(code.load(biases, channel)) for channel in range(shape.outputs)]
            sums = code.loop(*_within(code, top, size, kernel), at_kernel_row, sums)
            pixel = code.offset((row, shape.output_size), (column, 1))
            for channel, value in enumerate(sums):
                place = code.builder.add(pixel, const(channel * area))
                result = code.builder.fadd(value, code.load(addends[0], place)) if add else value
                code.store(code.relu(result) if relu else result, results, place)

        code.loop(const(0), const(shape.output_size), at_column)

    code.loop(const(0), const(shape.output_size), at_row)
    return code.close()


def emit_input_gradient(
    module: ir.Module, name: str, shape: Convolution, *, lanes: int, add: bool
) -> ir.Function:
    """Writes a function that takes the gradient of a convolution's result to its images.

    Its arguments: the gradient, vectors [outputs][output_size][output_size];
    weights, float [kernel][kernel][outputs][inputs]; with `add` what is added to
    the result; the result, vectors [inputs][size][size].
    """
    vectors, floats = ir.VectorType(F32, lanes).as_pointer(), F32.as_pointer()
    kinds = [vectors, floats, *([vectors] if add else []), vectors]
    code = Emitter(module, name, kinds, lanes=lanes)
    gradients, weights, *addends, results = code.arguments
    output_size, kernel, stride = shape.output_size, shape.kernel, shape.stride

    def taps(place: Value) -> tuple[Value, Value, Value]:
        """The first and the last row of the kernel that meet an image's row, and that row moved."""
        moved = code.builder.add(place, const(shape.padding))
        first = code.largest(
            code.builder.srem(moved, const(stride)),
            code.builder.sub(moved, const(stride * (output_size - 1))),
        )
        return first, code.smallest(const(kernel), code.builder.add(moved, const(1))), moved

    def at_row(row: Value, _: object) -> None:
        first_down, last_down, moved_row = taps(row)

        def at_column(column: Value, _: object) -> None:
            first_right, last_right, moved_column = taps(column)

            def at_kernel_row(down: Value, sums: list[Value]) -> list[Value]:
                from_row = code.builder.sdiv(code.builder.sub(moved_row, down), const(stride))

                def at_kernel_column(right: Value, sums: list[Value]) -> list[Value]:
                    from_column = code.builder.sdiv(
                        code.builder.sub(moved_column, right), const(stride)
                    )
                    pixel = code.at(
                        gradients, code.offset((from_row, output_size), (from_column, 1))
                    )
                    factors = code.at(
                        weights,
                        code.offset(
                            (down, kernel * shape.inputs * shape.outputs),
                            (right, shape.inputs * shape.outputs),
                        ),
                    )
                    return _accumulate(
                        code, pixel, factors, sums, channels=shape.outputs, area=output_size**2
                    )

                return code.loop(
                    first_right, last_right, at_kernel_column, sums, step=const(stride)
                )

            sums = [code.zero()] * shape.inputs
            sums = code.loop(first_down, last_down, at_kernel_row, sums, step=const(stride))
            pixel = code.offset((row, shape.size), (column, 1))
            for channel, value in enumerate(sums):
                place = code.builder.add(pixel, const(channel * shape.size**2))
                result = code.builder.fadd(value, code.load(addends[0], place)) if add else value
                code.store(result, results, place)

        code.loop(const(0), const(shape.size), at_column)

    code.loop(const(0), const(shape.size), at_row)
    return code.close()


def emit_weight_gradient(
    module: ir.Module, name: str, shape: Convolution, *, lanes: int, at_once: int
) -> ir.Function:
    """Writes a function that takes a gradient of one group's result to the weights.

    Its arguments: images, vectors [inputs][size][size]; the gradient, vectors
    [outputs][output_size][output_size]; scratch, vectors [weights]; the result,
    float [kernel][kernel][inputs][outputs].

    The sums of `at_once` input channels and all output channels are held in
    registers along a row, and lie in the scratch between rows.
    """
    vectors, floats = ir.VectorType(F32, lanes).as_pointer(), F32.as_pointer()
    code = Emitter(module, name, [vectors, vectors, vectors, floats], lanes=lanes)
    images, gradients, scratch, results = code.arguments
    size, kernel, outputs, stride = shape.size, shape.kernel, shape.outputs, shape.stride
    area, output_area = size**2, shape.output_size**2

    def clear(index: Value, _: object) -> None:
        code.store(code.zero(), scratch, index)

    def at_row(row: Value, _: object) -> None:
        top = code.builder.sub(code.builder.mul(row, const(stride)), const(shape.padding))

        def at_kernel_row(down: Value, _: object) -> None:
            image_row = code.builder.add(top, down)

            def at_kernel_column(right: Value, _: object) -> None:
                left = code.builder.sub(right, const(shape.padding))
                first, last = _columns(code, left, shape)
                place = code.offset(
                    (down, kernel * shape.inputs * outputs), (right, shape.inputs * outputs)
                )

                def add(channels: range) -> None:
                    def at_column(column: Value, sums: list[Value]) -> list[Value]:
                        image_column = code.builder.add(
                            code.builder.mul(column, const(stride)), left
                        )
                        pixel = code.at(images, code.offset((image_row, size), (image_column, 1)))
                        slope = code.at(
                            gradients, code.offset((row, shape.output_size), (column, 1))
                        )
                        slopes = [
                            code.load(slope, number * output_area) for number in range(outputs)
                        ]
                        values = [code.load(pixel, channel * area) for channel in channels]
                        return [
                            code.fma(*factors, total)
                            for factors, total in zip(
                                itertools.product(values, slopes), sums, strict=True
                            )
                        ]

                    block = code.at(scratch, code.builder.add(place, const(channels[0] * outputs)))
                    sums = [code.load(block, index) for index in range(len(channels) * outputs)]
                    for index, value in enumerate(code.loop(first, last, at_column, sums)):
                        code.store(value, block, index)

                for start in range(0, shape.inputs, at_once):
                    add(range(start, min(start + at_once, shape.inputs)))

            code.loop(const(0), const(kernel), at_kernel_column)

        code.loop(*_within(code, top, size, kernel), at_kernel_row)

    def reduce(index: Value, _: object) -> None:
        code.store(code.total(code.load(scratch, index)), results, index)

    code.loop(const(0), const(shape.weights), clear)
    code.loop(const(0), const(shape.output_size), at_row)
    code.loop(const(0), const(shape.weights), reduce)
    return code.close()


def _accumulate(
    code: Emitter, pixel: Value, factors: Value, sums: list[Value], *, channels: int, area: int
) -> list[Value]:
    """Adds each channel of a pixel times its weight to each sum.

    `area` vectors lie between two channels of a pixel.
    """
    sums = list(sums)
    for channel in range(channels):
        value = code.load(pixel, channel * area)
        for number, total in enumerate(sums):
            factor = code.splat(code.load(factors, channel * len(sums) + number))
            sums[number] = code.fma(value, factor, total)
    return sums


def _within(code: Emitter, corner: Value, size: int, kernel: int) -> tuple[Value, Value]:
    """Where a kernel that begins at `corner` lies inside of the image."""
    first = code.largest(const(0), code.builder.sub(const(0), corner))
    return first, code.smallest(const(kernel), code.builder.sub(const(size), corner))


def _columns(code: Emitter, left: Value, shape: Convolution) -> tuple[Value, Value]:
    """The columns of the result to which a column of the kernel gives something."""
    stride = const(shape.stride)
    behind = code.largest(const(0), code.builder.sub(const(0), left))
    first = code.builder.sdiv(code.builder.add(behind, const(shape.stride - 1)), stride)
    room = code.builder.sub(const(shape.size - 1), left)
    last = code.builder.add(code.builder.sdiv(room, stride), const(1))
    return first, code.smallest(const(shape.output_size), last)
