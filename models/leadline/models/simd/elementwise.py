"""What lies between convolutions: batch norms, ReLUs and their gradients.

Each function deals with one group of images (see `convolutions`) and all of
its channels.
"""

from llvmlite import ir

from leadline.models.simd.emitter import F32, F64, I64, Emitter, Value, const

CHANNELS = 8
"""Channels inside of the blocks."""

EPSILON = 1e-5
"""What a batch norm adds to the variance: PyTorch's default."""


def emit_statistics(module: ir.Module, name: str, *, area: int, lanes: int) -> ir.Function:
    """Writes a function that sums up what a batch norm must know of a group.

    Its arguments: values, vectors [8][area]; which lanes hold an image, a vector
    of ones and zeros; how many do, float; the results, double [8][2]: the mean of
    a channel, and the sum of the squared distances from it.
    """
    vectors = ir.VectorType(F32, lanes).as_pointer()
    code = Emitter(module, name, [vectors, vectors, F32, F64.as_pointer()], lanes=lanes)
    values, held, count, results = code.arguments
    mask = code.load(held)
    numbers = code.builder.fmul(count, ir.Constant(F32, float(area)))

    def at_channel(channel: Value, _: object) -> None:
        first = code.at(values, code.offset((channel, area)))

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
            code.store(code.builder.fpext(value, F64), results, place)

    code.loop(const(0), const(CHANNELS), at_channel)
    return code.close()


def emit_combination(module: ir.Module, name: str, *, area: int, lanes: int) -> ir.Function:
    """Writes a function that makes a batch's statistics of its groups'.

    Its arguments: what `emit_statistics` gave, double [groups][8][2]; images in
    each group, float [groups]; groups; the batch norm's weights and biases, float
    [8]; the results, float [4][8]: mean, biased variance, and the scale and shift
    that turn a value into the normalised one.

    Source: the parallel algorithm of Chan, Golub and LeVeque (1979).
    """
    floats, doubles = F32.as_pointer(), F64.as_pointer()
    code = Emitter(module, name, [doubles, floats, I64, floats, floats, floats], lanes=lanes)
    statistics, counts, groups, weights, biases, results = code.arguments
    builder = code.builder

    def at_channel(channel: Value, _: object) -> None:
        def merge(group: Value, so_far: list[Value]) -> list[Value]:
            count, mean, squares = so_far
            place = code.offset((group, 2 * CHANNELS), (channel, 2))
            images = builder.fpext(code.load(counts, group), F64)
            more = builder.fmul(images, ir.Constant(F64, float(area)))
            both = builder.fadd(count, more)
            distance = builder.fsub(code.load(statistics, place), mean)
            share = builder.fdiv(more, both)
            mean = builder.fadd(mean, builder.fmul(distance, share))
            between = builder.fmul(builder.fmul(distance, distance), builder.fmul(count, share))
            own = code.load(statistics, builder.add(place, const(1)))
            return [both, mean, builder.fadd(squares, builder.fadd(own, between))]

        start = [ir.Constant(F64, 0.0)] * 3
        count, mean, squares = code.loop(const(0), groups, merge, start)
        variance = builder.fdiv(squares, count)
        deviation = code.root(builder.fadd(variance, ir.Constant(F64, EPSILON)))
        weight = builder.fpext(code.load(weights, channel), F64)
        scale = builder.fdiv(weight, deviation)
        bias = builder.fpext(code.load(biases, channel), F64)
        shift = builder.fsub(bias, builder.fmul(mean, scale))
        for number, value in enumerate((mean, variance, scale, shift)):
            place = builder.add(channel, const(number * CHANNELS))
            code.store(builder.fptrunc(value, F32), results, place)

    code.loop(const(0), const(CHANNELS), at_channel)
    return code.close()


def emit_normalization(
    module: ir.Module, name: str, *, area: int, lanes: int, add: bool
) -> ir.Function:
    """Writes a function that scales and shifts each channel, adds to it, and takes the ReLU.

    Its arguments: values, vectors [8][area]; scales and shifts, float [2][8]; with
    `add` what is added, like the values; the result, like the values.
    """
    vectors, floats = ir.VectorType(F32, lanes).as_pointer(), F32.as_pointer()
    kinds = [vectors, floats, *([vectors] if add else []), vectors]
    code = Emitter(module, name, kinds, lanes=lanes)
    values, factors, *addends, results = code.arguments

    def at_channel(channel: Value, _: object) -> None:
        scale = code.splat(code.load(factors, channel))
        shift = code.splat(code.load(factors, code.builder.add(channel, const(CHANNELS))))

        def at_pixel(pixel: Value, _: object) -> list[Value]:
            place = code.offset((channel, area), (pixel, 1))
            value = code.fma(code.load(values, place), scale, shift)
            if add:
                value = code.builder.fadd(value, code.load(addends[0], place))
            code.store(code.relu(value), results, place)
            return []

        code.pixels(area, at_pixel, 0)

    code.loop(const(0), const(CHANNELS), at_channel)
    return code.close()


def emit_relu_gradient(
    module: ir.Module, name: str, *, area: int, lanes: int, normalized: bool, keep: bool
) -> ir.Function:
    """Writes a function that takes a gradient back through a ReLU, in place, and sums it up.

    Its arguments: the gradient, vectors [8][area]; what the ReLU gave, likewise;
    where `normalized`, what went into the batch norm before, likewise, and the
    batch's means, float [8]; where `keep`, where a copy of the gradient goes; the
    sums, float [8][2]: of the gradient, and of its products with the distances
    from the mean (nothing there unless `normalized`).
    """
    vectors, floats = ir.VectorType(F32, lanes).as_pointer(), F32.as_pointer()
    kinds = [vectors, vectors, *([vectors, floats] if normalized else [])]
    code = Emitter(module, name, [*kinds, *([vectors] if keep else []), floats], lanes=lanes)
    gradients, outputs, *others, results = code.arguments

    def at_channel(channel: Value, _: object) -> None:
        means = code.splat(code.load(others[1], channel)) if normalized else None

        def at_pixel(pixel: Value, sums: list[Value]) -> list[Value]:
            place = code.offset((channel, area), (pixel, 1))
            passes = code.builder.fcmp_ordered("<=", code.load(outputs, place), code.zero())
            slope = code.builder.select(passes, code.zero(), code.load(gradients, place))
            code.store(slope, gradients, place)
            if keep:
                code.store(slope, others[-1], place)
            total = code.builder.fadd(sums[0], slope)
            if not normalized:
                return [total]
            distance = code.builder.fsub(code.load(others[0], place), means)
            return [total, code.fma(distance, slope, sums[1])]

        totals = code.pixels(area, at_pixel, 2 if normalized else 1)
        for number, value in enumerate(totals):
            place = code.offset((channel, 2), (const(number), 1))
            code.store(code.total(value), results, place)

    code.loop(const(0), const(CHANNELS), at_channel)
    return code.close()


def emit_normalization_sums(module: ir.Module, name: str, *, lanes: int) -> ir.Function:
    """Writes a function that makes a batch's sums of its groups', for a batch norm's gradient.

    Its arguments: what `emit_relu_gradient` gave, float [groups][8][2]; groups;
    numbers in a channel of the batch, double; the batch's variance, float [8]; the
    batch norm's weights, float [8]; the results, float [5][8]: the gradients of
    the weights and of the biases, and the factors of the gradient, of the distance
    from the mean, and of one, that make the gradient of what went in.
    """
    floats = F32.as_pointer()
    code = Emitter(module, name, [floats, I64, F64, floats, floats, floats], lanes=lanes)
    sums, groups, numbers, variances, weights, results = code.arguments
    builder = code.builder

    def at_channel(channel: Value, _: object) -> None:
        def merge(group: Value, so_far: list[Value]) -> list[Value]:
            place = code.offset((group, 2 * CHANNELS), (channel, 2))
            return [
                builder.fadd(
                    total,
                    builder.fpext(code.load(sums, builder.add(place, const(number))), F64),
                )
                for number, total in enumerate(so_far)
            ]

        slope, product = code.loop(const(0), groups, merge, [ir.Constant(F64, 0.0)] * 2)
        variance = builder.fpext(code.load(variances, channel), F64)
        deviation = code.root(builder.fadd(variance, ir.Constant(F64, EPSILON)))
        of_weight = builder.fdiv(product, deviation)
        scale = builder.fdiv(builder.fpext(code.load(weights, channel), F64), deviation)
        share = builder.fdiv(scale, numbers)
        of_distance = builder.fdiv(builder.fmul(share, of_weight), deviation)
        of_one = builder.fmul(share, slope)
        for number, value in enumerate((of_weight, slope, scale, of_distance, of_one)):
            place = builder.add(channel, const(number * CHANNELS))
            code.store(builder.fptrunc(value, F32), results, place)

    code.loop(const(0), const(CHANNELS), at_channel)
    return code.close()


def emit_normalization_gradient(
    module: ir.Module, name: str, *, area: int, lanes: int
) -> ir.Function:
    """Writes a function that takes a gradient back through a batch norm, in place.

    Its arguments: the gradient, vectors [8][area]; what went into the batch norm,
    likewise; the batch's means, float [8]; the three factors that
    `emit_normalization_sums` gave, float [3][8]; which lanes hold an image.

    Source: Ioffe and Szegedy (2015), with the terms gathered.
    """
    vectors, floats = ir.VectorType(F32, lanes).as_pointer(), F32.as_pointer()
    kinds = [vectors, vectors, floats, floats, vectors]
    code = Emitter(module, name, kinds, lanes=lanes)
    gradients, inputs, means, factors, held = code.arguments
    mask = code.load(held)

    def at_channel(channel: Value, _: object) -> None:
        of_slope, of_distance, of_one = (
            code.splat(code.load(factors, code.builder.add(channel, const(number * CHANNELS))))
            for number in range(3)
        )
        mean = code.splat(code.load(means, channel))
        of_distance = code.builder.fneg(of_distance)

        def at_pixel(pixel: Value, _: object) -> list[Value]:
            place = code.offset((channel, area), (pixel, 1))
            distance = code.builder.fsub(code.load(inputs, place), mean)
            slope = code.builder.fmul(code.load(gradients, place), of_slope)
            slope = code.builder.fsub(code.fma(distance, of_distance, slope), of_one)
            slope = code.builder.fmul(slope, mask)
            code.store(slope, gradients, place)
            return []

        code.pixels(area, at_pixel, 0)

    code.loop(const(0), const(CHANNELS), at_channel)
    return code.close()


def emit_totals(module: ir.Module, name: str, *, area: int, lanes: int) -> ir.Function:
    """Writes a function that sums up each channel of a group.

    Its arguments: values, vectors [8][area]; the sums, float [8].
    """
    vectors, floats = ir.VectorType(F32, lanes).as_pointer(), F32.as_pointer()
    code = Emitter(module, name, [vectors, floats], lanes=lanes)
    values, results = code.arguments

    def at_channel(channel: Value, _: object) -> None:
        def at_pixel(pixel: Value, sums: list[Value]) -> list[Value]:
            place = code.offset((channel, area), (pixel, 1))
            return [code.builder.fadd(sums[0], code.load(values, place))]

        [total] = code.pixels(area, at_pixel, 1)
        code.store(code.total(total), results, channel)

    code.loop(const(0), const(CHANNELS), at_channel)
    return code.close()
