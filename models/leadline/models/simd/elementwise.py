"""Kernels between convolutions: batch norms, ReLUs and their gradients.

Each computes all channels of one group of images (see `convolutions`), or merges what
was computed for the groups of a batch.
"""

from llvmlite import ir

from leadline.models._shapes import CHANNELS, EPSILON
from leadline.models.simd.emitter import Emitter, const
from leadline.models.simd.signatures import F32, F64, Kernel, KernelSignature, Kind, Value


def emit_statistics(module: ir.Module, name: str, *, area: int, lanes: int) -> Kernel:
    """Writes a kernel that computes a batch norm's statistics of one group.

    Its arguments: `values`, vectors [8][area]; `mask`, a vector with 1 where a lane
    holds an image and 0 elsewhere; `count`, the images in the group, float; `result`,
    double [8][2]: the mean of a channel, and the sum of the squared distances from it.
    """
    signature = KernelSignature(
        values=Kind.VECTORS, mask=Kind.VECTORS, count=Kind.FLOAT, result=Kind.DOUBLES
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
    """Writes a kernel that merges the statistics of groups into those of the batch.

    Its arguments: `statistics`, double [groups][8][2], from `emit_statistics`;
    `counts`, the images in each group, float [groups]; `groups`; `weights` and
    `biases` of the batch norm, float [8]; `result`, float [4][8]: mean, biased
    variance, and the scale and shift that normalise a value.

    Source: the parallel algorithm of Chan, Golub and LeVeque (1979).
    """
    signature = KernelSignature(
        statistics=Kind.DOUBLES,
        counts=Kind.FLOATS,
        groups=Kind.INTEGER,
        weights=Kind.FLOATS,
        biases=Kind.FLOATS,
        result=Kind.FLOATS,
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
    """Writes a kernel that scales and shifts each channel, adds to it, and takes the ReLU.

    Its arguments: `values`, vectors [8][area]; `scale_shift`, float [2][8]; with `add`
    an `addend`, like the values; `result`, like the values.
    """
    signature = KernelSignature(
        values=Kind.VECTORS,
        scale_shift=Kind.FLOATS,
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
    """Writes a kernel that takes a gradient back through a ReLU, in place, and sums it.

    Its arguments: `grad_output`, vectors [8][area]; `outputs` of the ReLU, likewise;
    where `normalized`, `inputs` of the batch norm before it, likewise, and the batch's
    `means`, float [8]; where `keep`, `grad_skip`, which gets a copy of the gradient;
    `sums`, float [8][2]: of the gradient, and of its products with the distances
    from the mean (not written unless `normalized`).
    """
    signature = KernelSignature(
        grad_output=Kind.VECTORS,
        outputs=Kind.VECTORS,
        inputs=Kind.VECTORS if normalized else None,
        means=Kind.FLOATS if normalized else None,
        grad_skip=Kind.VECTORS if keep else None,
        sums=Kind.FLOATS,
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
    """Writes a kernel that merges the sums of groups for the gradient of a batch norm.

    Its arguments: `sums`, float [groups][8][2], from `emit_relu_gradient`; `groups`;
    `numbers` in a channel of the batch, double; `variances` of the batch, float [8];
    `weights` of the batch norm, float [8]; `result`, float [5][8]: the gradients of
    the weights and of the biases, and the factors of `emit_normalization_gradient`.
    """
    signature = KernelSignature(
        sums=Kind.FLOATS,
        groups=Kind.INTEGER,
        numbers=Kind.DOUBLE,
        variances=Kind.FLOATS,
        weights=Kind.FLOATS,
        result=Kind.FLOATS,
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
    """Writes a kernel that takes a gradient back through a batch norm, in place.

    Its arguments: `grad_output`, vectors [8][area]; `inputs` of the batch norm,
    likewise; the batch's `means`, float [8]; `factors`, float [3][8], from
    `emit_gradient_sums_merge`: those of the gradient, of the distance from the mean,
    and of one; `mask`, a vector as in `emit_statistics`.

    Source: Ioffe and Szegedy (2015), with the terms gathered.
    """
    signature = KernelSignature(
        grad_output=Kind.VECTORS,
        inputs=Kind.VECTORS,
        means=Kind.FLOATS,
        factors=Kind.FLOATS,
        mask=Kind.VECTORS,
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
    """Writes a kernel that sums each channel of a group.

    Its arguments: `values`, vectors [8][area]; `sums`, float [8].
    """
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
