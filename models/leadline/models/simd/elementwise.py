"""Kernels before and between convolutions: pixels, batch norms, ReLUs and their gradients.

Each kernel computes all channels of one group of images (see `convolutions`), or merges
the results of a batch's groups. Comments beside the arguments give their shapes.
"""

from llvmlite import ir

from leadline.models._shapes import CHANNELS, EPSILON
from leadline.models.simd.emitter import Emitter, const
from leadline.models.simd.signatures import F32, F64, I32, Kernel, KernelSignature, Kind, Value

_WORD_BYTES = 4


def emit_scaling(module: ir.Module, name: str, *, channels: int, area: int, lanes: int) -> Kernel:
    """Writes a kernel that transposes the bytes of a group to vectors, and scales to [-1, 1].

    Each lane reads words of four bytes; `channels` words hold the channels of four pixels.
    """
    signature = KernelSignature(
        pixels=Kind.BYTES,  # [lanes][area][channels]
        result=Kind.VECTORS,  # [channels][area]
    )
    code = Emitter(module, name, signature, lanes=lanes)
    args, builder = code.arguments, code.builder
    words = ir.VectorType(I32, lanes)
    half, one, low = (
        ir.Constant(kind, [value] * lanes)
        for kind, value in ((code.vector, 127.5), (code.vector, 1.0), (words, 0xFF))
    )

    def word(begin: Value) -> Value:
        """The word at an offset in every image."""
        result = ir.Constant(words, ir.Undefined)
        for lane in range(lanes):
            pointer = code.at(args.pixels, builder.add(begin, const(lane * area * channels)))
            value = builder.load(builder.bitcast(pointer, I32.as_pointer()), align=1)
            result = builder.insert_element(result, value, ir.Constant(I32, lane))
        return result

    def at_pixels(pixel: Value, _: object) -> None:
        for number in range(channels):
            first = number * _WORD_BYTES
            held = word(code.offset((pixel, channels), (const(first), 1)))
            for byte in range(_WORD_BYTES):
                shift = ir.Constant(words, [8 * byte] * lanes)
                value = builder.and_(builder.lshr(held, shift), low)
                value = builder.fdiv(builder.sitofp(value, code.vector), half)
                pixel_of_byte, channel = divmod(first + byte, channels)
                place = builder.add(pixel, const(channel * area + pixel_of_byte))
                code.store(builder.fsub(value, one), args.result, place)

    code.loop(const(0), const(area), at_pixels, step=const(_WORD_BYTES))
    return code.close()


def emit_statistics(module: ir.Module, name: str, *, area: int, lanes: int) -> Kernel:
    """Writes a kernel that computes the statistics of one group for a batch norm."""
    signature = KernelSignature(
        values=Kind.VECTORS,  # [8][area]
        mask=Kind.VECTORS,  # one: 1 where a lane holds an image, else 0
        count=Kind.FLOAT,  # images in the group
        result=Kind.DOUBLES,  # [8][2]: mean, sum of the squared deviations
    )
    code = Emitter(module, name, signature, lanes=lanes)
    args = code.arguments
    mask = code.load(args.mask)
    numbers = code.builder.fmul(args.count, ir.Constant(F32, float(area)))

    def at_channel(channel: Value, _: object) -> None:
        first = code.at(args.values, code.offset((channel, area)))

        def add(pixel: Value, sums: list[Value]) -> list[Value]:
            return [code.fma(code.load(first, pixel), mask, sums[0])]

        [total] = code.pixels(area, add, 1)
        mean = code.builder.fdiv(code.total(total), numbers)
        means = code.splat(mean)

        def add_square(pixel: Value, sums: list[Value]) -> list[Value]:
            distance = code.builder.fsub(code.load(first, pixel), means)
            distance = code.builder.fmul(distance, mask)
            return [code.fma(distance, distance, sums[0])]

        [squares] = code.pixels(area, add_square, 1)
        for number, value in enumerate((mean, code.total(squares))):
            place = code.offset((channel, 2), (const(number), 1))
            code.store(code.builder.fpext(value, F64), args.result, place)

    code.loop(const(0), const(CHANNELS), at_channel)
    return code.close()


def emit_statistics_merge(module: ir.Module, name: str, *, area: int, lanes: int) -> Kernel:
    """Writes a kernel that merges the statistics of the groups into statistics of the batch.

    Source: the parallel algorithm of Chan, Golub and LeVeque (1979).
    """
    signature = KernelSignature(
        statistics=Kind.DOUBLES,  # [groups][8][2], from `emit_statistics`
        counts=Kind.FLOATS,  # [groups]: images in each
        groups=Kind.INTEGER,
        weights=Kind.FLOATS,  # [8], of the batch norm
        biases=Kind.FLOATS,  # [8]
        result=Kind.FLOATS,  # [4][8]: mean, biased variance, and scale and shift to normalise
    )
    code = Emitter(module, name, signature, lanes=lanes)
    args, builder = code.arguments, code.builder

    def at_channel(channel: Value, _: object) -> None:
        def merge(group: Value, so_far: list[Value]) -> list[Value]:
            count, mean, squares = so_far
            place = code.offset((group, 2 * CHANNELS), (channel, 2))
            images = builder.fpext(code.load(args.counts, group), F64)
            more = builder.fmul(images, ir.Constant(F64, float(area)))
            both = builder.fadd(count, more)
            distance = builder.fsub(code.load(args.statistics, place), mean)
            share = builder.fdiv(more, both)
            mean = builder.fadd(mean, builder.fmul(distance, share))
            between = builder.fmul(builder.fmul(distance, distance), builder.fmul(count, share))
            within = code.load(args.statistics, builder.add(place, const(1)))
            return [both, mean, builder.fadd(squares, builder.fadd(within, between))]

        start = [ir.Constant(F64, 0.0)] * 3
        count, mean, squares = code.loop(const(0), args.groups, merge, start)
        variance = builder.fdiv(squares, count)
        deviation = code.root(builder.fadd(variance, ir.Constant(F64, EPSILON)))
        weight = builder.fpext(code.load(args.weights, channel), F64)
        scale = builder.fdiv(weight, deviation)
        bias = builder.fpext(code.load(args.biases, channel), F64)
        shift = builder.fsub(bias, builder.fmul(mean, scale))
        for number, value in enumerate((mean, variance, scale, shift)):
            place = builder.add(channel, const(number * CHANNELS))
            code.store(builder.fptrunc(value, F32), args.result, place)

    code.loop(const(0), const(CHANNELS), at_channel)
    return code.close()


def emit_normalization(module: ir.Module, name: str, *, area: int, lanes: int, add: bool) -> Kernel:
    """Writes a kernel that scales and shifts each channel, adds to it, and takes the ReLU."""
    signature = KernelSignature(
        values=Kind.VECTORS,  # [8][area], as are the addend and the result
        scale_shift=Kind.FLOATS,  # [2][8]
        addend=Kind.VECTORS if add else None,
        result=Kind.VECTORS,
    )
    code = Emitter(module, name, signature, lanes=lanes)
    args = code.arguments

    def at_channel(channel: Value, _: object) -> None:
        scale = code.splat(code.load(args.scale_shift, channel))
        shift = code.load(args.scale_shift, code.builder.add(channel, const(CHANNELS)))
        shift = code.splat(shift)

        def at_pixel(pixel: Value, _: object) -> list[Value]:
            place = code.offset((channel, area), (pixel, 1))
            value = code.fma(code.load(args.values, place), scale, shift)
            if add:
                value = code.builder.fadd(value, code.load(args.addend, place))
            code.store(code.relu(value), args.result, place)
            return []

        code.pixels(area, at_pixel, 0)

    code.loop(const(0), const(CHANNELS), at_channel)
    return code.close()


def emit_relu_gradient(
    module: ir.Module, name: str, *, area: int, lanes: int, normalized: bool, keep: bool
) -> Kernel:
    """Writes a kernel for the backward pass of a ReLU, in place, which also sums the gradient.

    If `normalized`, it also sums the products of the gradient with the deviations of
    the batch norm's inputs from the mean.
    """
    signature = KernelSignature(
        grad_output=Kind.VECTORS,  # [8][area], as are the other vectors
        outputs=Kind.VECTORS,  # of the ReLU
        inputs=Kind.VECTORS if normalized else None,  # of the batch norm before it
        means=Kind.FLOATS if normalized else None,  # [8]
        grad_skip=Kind.VECTORS if keep else None,  # gets a copy of the gradient
        sums=Kind.FLOATS,  # [8][2]
    )
    code = Emitter(module, name, signature, lanes=lanes)
    args = code.arguments

    def at_channel(channel: Value, _: object) -> None:
        means = code.splat(code.load(args.means, channel)) if normalized else None

        def at_pixel(pixel: Value, sums: list[Value]) -> list[Value]:
            place = code.offset((channel, area), (pixel, 1))
            closed = code.builder.fcmp_ordered("<=", code.load(args.outputs, place), code.zero())
            gradient = code.load(args.grad_output, place)
            gradient = code.builder.select(closed, code.zero(), gradient)
            code.store(gradient, args.grad_output, place)
            if keep:
                code.store(gradient, args.grad_skip, place)
            total = code.builder.fadd(sums[0], gradient)
            if not normalized:
                return [total]
            distance = code.builder.fsub(code.load(args.inputs, place), means)
            return [total, code.fma(distance, gradient, sums[1])]

        totals = code.pixels(area, at_pixel, 2 if normalized else 1)
        for number, value in enumerate(totals):
            place = code.offset((channel, 2), (const(number), 1))
            code.store(code.total(value), args.sums, place)

    code.loop(const(0), const(CHANNELS), at_channel)
    return code.close()


def emit_gradient_sums_merge(module: ir.Module, name: str, *, lanes: int) -> Kernel:
    """Writes a kernel that merges the sums of the groups for a batch norm's gradients.

    The result holds the gradients of the batch norm's weights and biases, and the three
    factors of `emit_normalization_gradient`.
    """
    signature = KernelSignature(
        sums=Kind.FLOATS,  # [groups][8][2], from `emit_relu_gradient`
        groups=Kind.INTEGER,
        numbers=Kind.DOUBLE,  # values in each channel of the batch
        variances=Kind.FLOATS,  # [8], of the batch
        weights=Kind.FLOATS,  # [8], of the batch norm
        result=Kind.FLOATS,  # [5][8]
    )
    code = Emitter(module, name, signature, lanes=lanes)
    args, builder = code.arguments, code.builder

    def at_channel(channel: Value, _: object) -> None:
        def merge(group: Value, so_far: list[Value]) -> list[Value]:
            place = code.offset((group, 2 * CHANNELS), (channel, 2))
            return [
                builder.fadd(
                    total,
                    builder.fpext(code.load(args.sums, builder.add(place, const(number))), F64),
                )
                for number, total in enumerate(so_far)
            ]

        start = [ir.Constant(F64, 0.0)] * 2
        gradient, product = code.loop(const(0), args.groups, merge, start)
        variance = builder.fpext(code.load(args.variances, channel), F64)
        deviation = code.root(builder.fadd(variance, ir.Constant(F64, EPSILON)))
        of_weight = builder.fdiv(product, deviation)
        scale = builder.fdiv(builder.fpext(code.load(args.weights, channel), F64), deviation)
        share = builder.fdiv(scale, args.numbers)
        of_distance = builder.fdiv(builder.fmul(share, of_weight), deviation)
        of_one = builder.fmul(share, gradient)
        for number, value in enumerate((of_weight, gradient, scale, of_distance, of_one)):
            place = builder.add(channel, const(number * CHANNELS))
            code.store(builder.fptrunc(value, F32), args.result, place)

    code.loop(const(0), const(CHANNELS), at_channel)
    return code.close()


def emit_normalization_gradient(module: ir.Module, name: str, *, area: int, lanes: int) -> Kernel:
    """Writes a kernel for the backward pass of a batch norm, in place.

    Source: Ioffe and Szegedy (2015), with the terms collected.
    """
    signature = KernelSignature(
        grad_output=Kind.VECTORS,  # [8][area]
        inputs=Kind.VECTORS,  # [8][area], of the batch norm
        means=Kind.FLOATS,  # [8], of the batch
        factors=Kind.FLOATS,  # [3][8]: of the gradient, of the deviation, and a constant
        mask=Kind.VECTORS,  # as in `emit_statistics`
    )
    code = Emitter(module, name, signature, lanes=lanes)
    args = code.arguments
    mask = code.load(args.mask)

    def at_channel(channel: Value, _: object) -> None:
        of_gradient, of_distance, of_one = (
            code.splat(code.load(args.factors, code.builder.add(channel, const(number * CHANNELS))))
            for number in range(3)
        )
        mean = code.splat(code.load(args.means, channel))
        of_distance = code.builder.fneg(of_distance)

        def at_pixel(pixel: Value, _: object) -> list[Value]:
            place = code.offset((channel, area), (pixel, 1))
            distance = code.builder.fsub(code.load(args.inputs, place), mean)
            gradient = code.builder.fmul(code.load(args.grad_output, place), of_gradient)
            gradient = code.builder.fsub(code.fma(distance, of_distance, gradient), of_one)
            gradient = code.builder.fmul(gradient, mask)
            code.store(gradient, args.grad_output, place)
            return []

        code.pixels(area, at_pixel, 0)

    code.loop(const(0), const(CHANNELS), at_channel)
    return code.close()


def emit_channel_sums(module: ir.Module, name: str, *, area: int, lanes: int) -> Kernel:
    """Writes a kernel that sums each channel of a group, vectors [8][area] to float [8]."""
    signature = KernelSignature(values=Kind.VECTORS, sums=Kind.FLOATS)
    code = Emitter(module, name, signature, lanes=lanes)
    args = code.arguments

    def at_channel(channel: Value, _: object) -> None:
        def at_pixel(pixel: Value, sums: list[Value]) -> list[Value]:
            place = code.offset((channel, area), (pixel, 1))
            return [code.builder.fadd(sums[0], code.load(args.values, place))]

        [total] = code.pixels(area, at_pixel, 1)
        code.store(code.total(total), args.sums, channel)

    code.loop(const(0), const(CHANNELS), at_channel)
    return code.close()
