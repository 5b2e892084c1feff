"""Convolutions of few channels, for a group of `lanes` images at once.

The layout is batch-blocked, NCHW16n in oneDNN's terms (8n with AVX2, 4n in the
baseline): a group of images is [channel][row][column][lane]. A vector register
holds one pixel of one channel of every image in the group, so a weight is the same
number for all lanes. Channels are never padded and lanes never shuffled.

Register blocking: a kernel computes a tile of adjacent output pixels and channels with one
sum for each in a register. The sums are independent, which keeps two multiply-adds a cycle
in flight, and they share the loaded pixels and weights.
"""

import functools
import itertools
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llvmlite import ir

from leadline.models._shapes import Convolution
from leadline.models.simd.emitter import Emitter, const
from leadline.models.simd.signatures import Kernel, KernelSignature, Kind, Value

# Output pixels and output channels of a tile, by lanes. Each weight is loaded once for all pixels
# of the tile, and each input pixel once for all its channels. Sums, input pixels and a weight must
# fit into the registers: 3 x 4 + 3 + 1 of 16, and 2 x 8 + 2 + 1 of 32 with AVX-512.
_TILES = {16: (2, 8), 8: (3, 4), 4: (3, 4)}

# Input and output channels of a tile of weights, by kernel size. A tile has a whole kernel row, so
# its sums are 5 x 1 x 2 and 3 x 2 x 2. Kernels of other sizes sum one row of one pair of channels.
_WEIGHT_TILES = {5: (1, 2), 3: (2, 2)}


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
    args = code.arguments

    def bias(channel: Value) -> Value:
        return code.splat(code.load(args.biases, channel))

    def store(total: Value, place: Value) -> None:
        result = code.builder.fadd(total, code.load(args.addend, place)) if add else total
        code.store(code.relu(result) if relu else result, args.result, place)

    source = _Source(
        pixels=args.images,
        channels=shape.inputs,
        size=shape.size,
        step=lambda width: width * shape.stride,
        stride=1,
        direction=1,
        column=lambda column, tap: column * shape.stride - shape.padding + tap,
        row=lambda row, tap: code.builder.add(_corner(code, row, shape), tap),
        taps=lambda row: _within(code, _corner(code, row, shape), shape),
    )
    width = _TILES[lanes][0]
    result = _Result(bias, shape.outputs, shape.output_size, width=width, store=store)
    _emit_sums(code, source, result, shape.kernel)
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
    args = code.arguments

    def store(total: Value, place: Value) -> None:
        result = code.builder.fadd(total, code.load(args.addend, place)) if add else total
        code.store(result, args.result, place)

    def column_of(column: int, tap: int) -> int:
        column, between = divmod(column + shape.padding - tap, shape.stride)
        return column if not between else -1

    def row_of(row: Value, tap: Value) -> Value:
        distance = code.builder.sub(code.builder.add(row, const(shape.padding)), tap)
        return code.builder.sdiv(distance, const(shape.stride))

    source = _Source(
        pixels=args.grad_output,
        channels=shape.outputs,
        size=shape.output_size,
        step=lambda width: width // shape.stride,
        stride=shape.stride,
        direction=-1,
        column=column_of,
        row=row_of,
        taps=lambda row: _taps_that_met(code, code.builder.add(row, const(shape.padding)), shape),
    )
    width = _TILES[lanes][0] * shape.stride
    result = _Result(lambda _: code.zero(), shape.inputs, shape.size, width=width, store=store)
    _emit_sums(code, source, result, shape.kernel)
    return code.close()


@dataclass(frozen=True)
class _Source:
    """The pixels that are multiplied by weights, and their positions for each result pixel.

    Attributes:
        pixels: the address of vectors [channels][size][size].
        channels: the number of channels.
        size: the number of rows and of columns.
        step: converts a distance of result columns to a distance of source columns.
        stride: the distance of the kernel columns that meet the same result pixels.
        direction: the distance of the source columns of two such kernel columns.
        column: the source column for a column of the result and one of the kernel; it may be
            outside the source.
        row: the source row for a row of the result and one of the kernel.
        taps: the bounds of the kernel rows inside the source, for a row of the result.
    """

    pixels: Value
    channels: int
    size: int
    step: Callable[[int], int]
    stride: int
    direction: int
    column: Callable[[int, int], int]
    row: Callable[[Value, Value], Value]
    taps: Callable[[Value], Sequence[Value]]


@dataclass(frozen=True)
class _Result:
    """The output of a kernel.

    Attributes:
        start: the initial sum of a channel.
        channels: the number of channels.
        size: the number of rows and of columns.
        width: the adjacent pixels of a tile.
        store: stores a sum at an index of the result.
    """

    start: Callable[[Value], Value]
    channels: int
    size: int
    width: int
    store: Callable[[Value, Value], None]


_Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Tile:
    """Adjacent pixels of a row of the result.

    Attributes:
        pixels: the number of pixels.
        pairs: for each kernel column, the pixels whose source column is inside the source:
            the number of the pixel and the column, both relative to the tile.
    """

    pixels: int
    pairs: tuple[_Pairs, ...]


def _tiles(source: _Source, result: _Result, kernel: int) -> Iterator[tuple[_Tile, list[int]]]:
    """Yields runs of equal tiles in a row, with their numbers; tiles at edges have fewer pairs."""

    def tile(number: int) -> _Tile:
        first, begin = number * result.width, number * source.step(result.width)
        pixels = range(min(result.width, result.size - first))

        def pairs(tap: int) -> Iterator[tuple[int, int]]:
            for pixel in pixels:
                column = source.column(first + pixel, tap)
                if 0 <= column < source.size:
                    yield pixel, column - begin

        return _Tile(len(pixels), tuple(tuple(pairs(tap)) for tap in range(kernel)))

    for kind, numbers in itertools.groupby(range(-(-result.size // result.width)), tile):
        yield kind, list(numbers)


class _Run(NamedTuple):
    """Kernel columns that share one loop.

    Attributes:
        first: the kernel column with the number 0; each number is a stride further.
        numbers: adjacent numbers of kernel columns.
        pairs: the pairs of number 0; those of others are further in the source's direction.
    """

    first: int
    numbers: list[int]
    pairs: _Pairs

    @property
    def bounds(self) -> tuple[Value, Value]:
        """The bounds of a loop over the numbers."""
        return const(self.numbers[0]), const(self.numbers[-1] + 1)

    @property
    def pixels(self) -> list[int]:
        """The pixels of the pairs."""
        return [pixel for pixel, _ in self.pairs]


def _column_runs(source: _Source, tile: _Tile) -> Iterator[_Run]:
    """Yields the runs of a tile; each of its pixels meets its kernel columns in ascending order."""
    for first in range(source.stride):
        columns = tile.pairs[first :: source.stride]

        def at_zero(number: int, columns: Sequence[_Pairs] = columns) -> _Pairs:
            distance = number * source.direction
            return tuple((pixel, column - distance) for pixel, column in columns[number])

        for pairs, numbers in itertools.groupby(range(len(columns)), at_zero):
            if pairs:
                yield _Run(first, list(numbers), pairs)


def _emit_sums(code: Emitter, source: _Source, result: _Result, kernel: int) -> None:
    """Emits the loops that sum products of source pixels and weights for each result pixel.

    The argument `weights` is [kernel][kernel][source channels][result channels].
    """
    pixels, channels = _TILES[code.lanes]
    block = _largest_divisor(result.channels, pixels * channels // result.width)
    column_weights = source.channels * result.channels

    def at_tile(tile: _Tile, indices: Sequence[Value], _: object) -> None:
        row, number, channel = indices
        places = list(itertools.product(range(tile.pixels), range(block)))

        def at_kernel_row(tap: Sequence[Value], sums: list[Value]) -> list[Value]:
            left = number, source.step(result.width)
            begin = code.offset((source.row(row, tap[0]), source.size), left)
            weights = code.offset((tap[0], kernel * column_weights), (channel, 1))
            totals = dict(zip(places, sums, strict=True))
            for run in _column_runs(source, tile):
                used = list(itertools.product(run.pixels, range(block)))
                body = functools.partial(at_kernel_column, begin, weights, run)
                sums = code.loop(*run.bounds, body, [totals[place] for place in used])
                totals |= zip(used, sums, strict=True)
            return list(totals.values())

        def at_kernel_column(
            begin: Value, weights: Value, run: _Run, number: Value, sums: list[Value]
        ) -> list[Value]:
            begin = code.offset((begin, 1), (number, source.direction))
            column = code.offset((const(run.first), 1), (number, source.stride))
            start = code.offset((weights, 1), (column, column_weights))
            body = functools.partial(at_source_channel, begin, start, run.pairs)
            return code.loop(const(0), const(source.channels), body, sums)

        def at_source_channel(
            begin: Value, start: Value, pairs: _Pairs, index: Value, sums: list[Value]
        ) -> list[Value]:
            pixels = code.at(source.pixels, code.offset((begin, 1), (index, source.size**2)))
            weights = code.offset((start, 1), (index, result.channels))
            weights = code.at(code.arguments.weights, weights)
            return _add_products(code, pixels, weights, pairs, sums)

        starts = [result.start(code.builder.add(channel, const(output))) for output in range(block)]
        sums = [starts[output] for _, output in places]
        sums = code.loop_nest([source.taps(row)], at_kernel_row, sums)
        first = code.offset((row, result.size), (number, result.width), (channel, result.size**2))
        for (pixel, output), total in zip(places, sums, strict=True):
            result.store(total, code.builder.add(first, const(output * result.size**2 + pixel)))

    def at_row(row: Value, _: object) -> None:
        only = row, code.builder.add(row, const(1))
        for tile, numbers in _tiles(source, result, kernel):
            bounds = [only, (numbers[0], numbers[-1] + 1), (0, result.channels, block)]
            code.loop_nest(bounds, functools.partial(at_tile, tile))

    code.loop(const(0), const(result.size), at_row)


def _add_products(
    code: Emitter, pixels: Value, weights: Value, pairs: _Pairs, sums: list[Value]
) -> list[Value]:
    """Adds the products of one kernel column and one source channel to [pairs][outputs] sums."""
    totals, block = list(sums), len(sums) // len(pairs)
    values = [code.load(pixels, column) for _, column in pairs]
    for output in range(block):
        weight = code.splat(code.load(weights, output))
        for place, value in enumerate(values):
            number = place * block + output
            totals[number] = code.fma(value, weight, totals[number])
    return totals


def _largest_divisor(number: int, most: int) -> int:
    """Returns the largest divisor of a number up to `most`."""
    return max(divisor for divisor in range(1, most + 1) if number % divisor == 0)


def emit_weight_gradient(module: ir.Module, name: str, shape: Convolution, *, lanes: int) -> Kernel:
    """Writes a kernel that computes the gradient of the weights from one group.

    Keeps the sums of a tile of weights in registers along a row of the image, and in the
    scratch between rows.
    """
    signature = KernelSignature(
        images=Kind.VECTORS,  # [inputs][size][size]
        grad_output=Kind.VECTORS,  # [outputs][output_size][output_size]
        scratch=Kind.VECTORS,  # [weights]
        result=Kind.FLOATS,  # [kernel][kernel][inputs][outputs]
    )
    code = Emitter(module, name, signature, lanes=lanes)
    args = code.arguments
    inputs, outputs = _WEIGHT_TILES.get(shape.kernel, (1, 1))
    block = _largest_divisor(shape.inputs, inputs), _largest_divisor(shape.outputs, outputs)

    def clear(index: Value, _: object) -> None:
        code.store(code.zero(), args.scratch, index)

    def at_row(row: Value, _: object) -> None:
        top = _corner(code, row, shape)

        def at_tap(indices: Sequence[Value], _: object) -> None:
            tap, *channels = indices
            rows = row, code.builder.add(top, tap)
            _accumulate_row(code, shape, block, channels, rows=rows, tap=tap)

        inputs, outputs = (0, shape.inputs, block[0]), (0, shape.outputs, block[1])
        code.loop_nest([_within(code, top, shape), inputs, outputs], at_tap)

    def reduce(index: Value, _: object) -> None:
        code.store(code.total(code.load(args.scratch, index)), args.result, index)

    code.loop(const(0), const(shape.weights), clear)
    code.loop(const(0), const(shape.output_size), at_row)
    code.loop(const(0), const(shape.weights), reduce)
    return code.close()


def _accumulate_row(
    code: Emitter,
    shape: Convolution,
    block: Sequence[int],
    channels: Sequence[Value],
    *,
    rows: tuple[Value, Value],
    tap: Value,
) -> None:
    """Adds a row's contribution to the gradient of a tile of weights, in the scratch.

    `block` has the input and output channels of the tile, `channels` the first of each. `rows`
    are a row of the gradient and one of the image; `tap` is a row of the kernel.
    """
    args, size, output_size = code.arguments, shape.size, shape.output_size
    inputs, outputs = map(range, block)
    weights = list(itertools.product(range(shape.kernel), inputs, outputs))

    def at_column(column: Value, sums: Sequence[Value], taps: Container[int]) -> list[Value]:
        left = _corner(code, column, shape)
        pixel = code.at(
            args.images, code.offset((rows[1], size), (left, 1), (channels[0], size**2))
        )
        grads = code.at(
            args.grad_output,
            code.offset((rows[0], output_size), (column, 1), (channels[1], output_size**2)),
        )
        gradients = {output: code.load(grads, output * output_size**2) for output in outputs}
        values = {
            (kernel_column, channel): code.load(pixel, channel * size**2 + kernel_column)
            for kernel_column, channel in itertools.product(range(shape.kernel), inputs)
            if kernel_column in taps
        }
        return [
            code.fma(values[kernel_column, channel], gradients[output], total)
            if kernel_column in taps
            else total
            for (kernel_column, channel, output), total in zip(weights, sums, strict=True)
        ]

    row = code.at(
        args.scratch,
        code.offset(
            (tap, shape.weights // shape.kernel), (channels[0], shape.outputs), (channels[1], 1)
        ),
    )
    places = [
        (kernel_column * shape.inputs + channel) * shape.outputs + output
        for kernel_column, channel, output in weights
    ]
    sums = [code.load(row, place) for place in places]
    for taps, columns in _columns_alike(shape):
        body = functools.partial(at_column, taps=taps)
        sums = code.loop(const(columns[0]), const(columns[-1] + 1), body, sums)
    for value, place in zip(sums, places, strict=True):
        code.store(value, row, place)


def _corner(code: Emitter, index: Value, shape: Convolution) -> Value:
    """The row or column of the image at which a result's window begins."""
    return code.builder.sub(code.builder.mul(index, const(shape.stride)), const(shape.padding))


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


def _columns_alike(shape: Convolution) -> Iterator[tuple[range, list[int]]]:
    """Yields runs of result columns with the kernel columns that are inside the image there."""

    def inside(column: int) -> range:
        left = column * shape.stride - shape.padding
        return range(max(0, -left), min(shape.kernel, shape.size - left))

    for taps, columns in itertools.groupby(range(shape.output_size), inside):
        yield taps, list(columns)
