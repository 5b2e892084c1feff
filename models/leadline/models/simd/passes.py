"""Whole passes through the convolutions of a network, one call each.

A pass is shared by threads, each of which takes some groups of images. Where
a batch norm needs what all of them found, they wait for one another.
"""

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from leadline.models.simd import convolutions, elementwise
from leadline.models.simd.convolutions import Convolution
from leadline.models.simd.elementwise import CHANNELS
from leadline.models.simd.emitter import F32, F64, I32, I64, Emitter, Value, const

WIDEN = Convolution(inputs=3, outputs=CHANNELS, kernel=5, size=32)
HALVE = Convolution(inputs=CHANNELS, outputs=CHANNELS, kernel=5, stride=2, size=WIDEN.output_size)
INNER = Convolution(inputs=CHANNELS, outputs=CHANNELS, kernel=3, padding=1, size=HALVE.output_size)
TAIL = Convolution(inputs=CHANNELS, outputs=4, kernel=3, stride=2, size=INNER.output_size)

AREA = INNER.output_size**2
PLANE = CHANNELS * AREA
"""Vectors that a group takes up between the blocks."""

SCRATCH = max(WIDEN.weights, HALVE.weights)
"""Vectors in which a thread sums up the gradient of weights."""

FIELDS = (
    # How much there is.
    "groups",
    "layers",  # convolutions inside the blocks
    "barrier",  # int64: how often a thread has come to one
    "counts",  # float [groups]: images in each
    "masks",  # vectors [groups]: one where a lane holds an image
    "pixels",  # double: numbers in a channel of the batch, inside of the blocks
    # What is computed with.
    "widen_weights",
    "widen_biases",
    "halve_weights",
    "halve_biases",
    "inner_weights",  # [layers]...
    "inner_biases",
    "tail_weights",
    "tail_biases",
    "halve_transposed",
    "inner_transposed",
    "tail_transposed",
    "norm_weights",  # [layers][8]
    "norm_biases",
    # What lies between the layers.
    "images",  # [groups][3][32][32]
    "widened",  # [groups][8][28][28]
    "activations",  # [layers + 1][groups][8][12][12]
    "convolved",  # [layers][groups][8][12][12]: what goes into a batch norm
    "features",  # [groups][4][5][5]
    "statistics",  # double [layers][groups][8][2]
    "norms",  # float [layers][4][8]
    # What flows back.
    "feature_slopes",  # [groups][4][5][5]
    "slopes",  # [2][groups][8][12][12]
    "kept_slopes",  # [groups][8][12][12]
    "widened_slopes",  # [threads][8][28][28]
    "scratch",  # [threads][SCRATCH]
    "norm_sums",  # float [layers][groups][8][2]; without batch norms the biases' gradients
    "norm_gradients",  # float [layers][5][8]
    "widen_gradients",  # float [groups]..., as are all that follow
    "widen_bias_gradients",
    "halve_gradients",
    "halve_bias_gradients",
    "inner_gradients",  # [layers][groups]...
    "tail_gradients",
)
"""What a pass finds in its frame: addresses, and two numbers."""

# How often a thread looks before it lets others run.
_PATIENCE = 4096


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a convolution stands in what an identity connection spans."""

    starts_skip: bool
    """Whether the connection starts from this convolution's input."""

    ends_skip: bool
    """Whether the connection is added to this convolution's result."""


class Pass:
    """Writes one pass: what it finds in its frame, and its share of the work."""

    def __init__(self, module: ir.Module, name: str, *, lanes: int) -> None:
        self.code = code = Emitter(module, name, [I64.as_pointer(), I64, I64], lanes=lanes)
        self.frame, self.thread, self.threads = code.arguments
        self.groups, self.layers = self._field("groups"), self._field("layers")
        share = code.builder.mul(self.groups, self.thread)
        next_share = code.builder.mul(self.groups, code.builder.add(self.thread, const(1)))
        self.first = code.builder.sdiv(share, self.threads)
        self.last = code.builder.sdiv(next_share, self.threads)

    def vectors(self, name: str, *terms: tuple[Value, int]) -> Value:
        """The address of vectors of a field."""
        return self._address(name, self.code.vector, terms)

    def floats(self, name: str, *terms: tuple[Value, int]) -> Value:
        """The address of floats of a field."""
        return self._address(name, F32, terms)

    def doubles(self, name: str, *terms: tuple[Value, int]) -> Value:
        """The address of doubles of a field."""
        return self._address(name, F64, terms)

    def each_group(self, body: Callable[[Value], None]) -> None:
        """Does something to each group of this thread's share."""
        self.code.loop(self.first, self.last, lambda group, _: body(group))

    def each_layer(
        self, skip: int, body: Callable[[Value, Position], None], *, backward: bool = False
    ) -> None:
        """Does something to each convolution inside the blocks, in the order of a pass.

        Args:
            skip: convolutions that an identity connection spans; 0 without such connections.
            body: is given the layer's number and its position in what a connection spans.
            backward: from the last to the first.
        """
        builder = self.code.builder
        span = max(skip, 1)

        def at_span(number: Value, _: object) -> None:
            first = builder.mul(number, const(span))
            if backward:
                first = builder.sub(self.layers, builder.add(first, const(span)))
            for offset in reversed(range(span)) if backward else range(span):
                position = Position(
                    starts_skip=skip > 0 and offset == 0,
                    ends_skip=skip > 0 and offset == span - 1,
                )
                body(builder.add(first, const(offset)), position)

        self.code.loop(const(0), builder.sdiv(self.layers, const(span)), at_span)

    def slopes(self, layer: Value, group: Value) -> Value:
        """The gradient of what goes into a layer; layers use two places in turn."""
        return self.vectors("slopes", (self.of_layer(self.code.is_odd(layer), group), PLANE))

    def of_layer(self, layer: Value, group: Value) -> Value:
        """The number of a group within a layer."""
        return self.code.builder.add(self.code.builder.mul(layer, self.groups), group)

    def wait_for_all(self) -> None:
        """Waits until every thread has come here."""
        builder = self.code.builder
        counter = self._address("barrier", I64, ())
        arrived = builder.atomic_rmw("add", counter, const(1), "acq_rel")
        rounds = builder.add(builder.sdiv(arrived, self.threads), const(1))
        goal = builder.mul(rounds, self.threads)
        let_others_run = self.code.declared("sched_yield", ir.FunctionType(I32, []))
        before = builder.block
        look, again, rest, after = (
            builder.append_basic_block(name) for name in ("look", "again", "rest", "met")
        )
        builder.branch(look)
        builder.position_at_end(look)
        looks = builder.phi(I64)
        looks.add_incoming(const(1), before)
        now = builder.load_atomic(counter, "acquire", 8)
        builder.cbranch(builder.icmp_signed("<", now, goal), again, after)
        builder.position_at_end(again)
        looks.add_incoming(builder.add(looks, const(1)), again)
        tired = builder.icmp_signed(">", looks, const(_PATIENCE))
        builder.cbranch(tired, rest, look)
        builder.position_at_end(rest)
        builder.call(let_others_run, [])
        looks.add_incoming(looks, rest)
        builder.branch(look)
        builder.position_at_end(after)

    def _field(self, name: str) -> Value:
        return self.code.load(self.frame, FIELDS.index(name))

    def _address(self, name: str, kind: ir.Type, terms: tuple[tuple[Value, int], ...]) -> Value:
        pointer = self.code.builder.inttoptr(self._field(name), kind.as_pointer())
        return self.code.at(pointer, self.code.offset(*terms))


def emit_forward_pass(module: ir.Module, *, batch_norm: bool, skip: int, lanes: int) -> None:
    """Writes `forward(frame, thread, threads)`: from images to features, for a training step.

    Args:
        module: where the function goes.
        batch_norm: whether a batch norm follows each convolution inside the blocks.
        skip: convolutions that an identity connection spans; 0 without such connections.
        lanes: images that are computed at once.
    """
    widen, halve, tail = _outer_convolutions(module, lanes=lanes)
    inner = _inner_steps(module, batch_norm=batch_norm, skip=skip, lanes=lanes)
    run = Pass(module, "forward", lanes=lanes)
    code = run.code

    def begin(group: Value) -> None:
        widened = run.vectors("widened", (group, WIDEN.output_vectors))
        images = run.vectors("images", (group, WIDEN.input_vectors))
        code.call(widen, images, run.floats("widen_weights"), run.floats("widen_biases"), widened)
        code.call(
            halve,
            widened,
            run.floats("halve_weights"),
            run.floats("halve_biases"),
            run.vectors("activations", (group, PLANE)),
        )

    def end(group: Value) -> None:
        code.call(
            tail,
            run.vectors("activations", (run.of_layer(run.layers, group), PLANE)),
            run.floats("tail_weights"),
            run.floats("tail_biases"),
            run.vectors("features", (group, TAIL.output_vectors)),
        )

    run.each_group(begin)
    run.each_layer(skip, lambda layer, position: inner(run, layer, position.ends_skip))
    run.each_group(end)
    code.close()


def _outer_convolutions(module: ir.Module, *, lanes: int) -> list[ir.Function]:
    """Writes the convolutions before and after the blocks, which have no activation."""
    return [
        convolutions.emit_forward(module, name, shape, lanes=lanes, add=False, relu=False)
        for name, shape in (("_widen", WIDEN), ("_halve", HALVE), ("_tail", TAIL))
    ]


def _inner_steps(
    module: ir.Module, *, batch_norm: bool, skip: int, lanes: int
) -> Callable[[Pass, Value, bool], None]:
    """Returns what writes one layer of a block."""
    convolve = {
        add: convolutions.emit_forward(
            module, f"_inner_{add}", INNER, lanes=lanes, add=add, relu=not batch_norm
        )
        for add in ({False, skip > 0} if not batch_norm else {False})
    }
    if batch_norm:
        gather = elementwise.emit_statistics(module, "_gather", area=AREA, lanes=lanes)
        combine = elementwise.emit_combination(module, "_combine", area=AREA, lanes=lanes)
        normalize = {
            add: elementwise.emit_normalization(
                module, f"_normalize_{add}", area=AREA, lanes=lanes, add=add
            )
            for add in {False, skip > 0}
        }

    def emit(run: Pass, layer: Value, add: bool) -> None:
        code = run.code
        # The activations that the identity connection which ends here starts from.
        skipped = code.builder.sub(layer, const(skip - 1))
        above = code.builder.add(layer, const(1))

        def activations(layer: Value, group: Value) -> Value:
            return run.vectors("activations", (run.of_layer(layer, group), PLANE))

        def convolved(group: Value) -> Value:
            return run.vectors("convolved", (run.of_layer(layer, group), PLANE))

        def convolution(group: Value) -> None:
            with_sum = add and not batch_norm
            code.call(
                convolve[with_sum],
                activations(layer, group),
                run.floats("inner_weights", (layer, INNER.weights)),
                run.floats("inner_biases", (layer, CHANNELS)),
                *([activations(skipped, group)] if with_sum else []),
                convolved(group) if batch_norm else activations(above, group),
            )
            if batch_norm:
                code.call(
                    gather,
                    convolved(group),
                    run.vectors("masks", (group, 1)),
                    code.load(run.floats("counts", (group, 1))),
                    run.doubles("statistics", (run.of_layer(layer, group), 2 * CHANNELS)),
                )

        def normalization(group: Value) -> None:
            code.call(
                normalize[add],
                convolved(group),
                run.floats("norms", (layer, 4 * CHANNELS), (const(1), 2 * CHANNELS)),
                *([activations(skipped, group)] if add else []),
                activations(above, group),
            )

        run.each_group(convolution)
        if not batch_norm:
            return
        run.wait_for_all()
        # Each thread does this for itself, to the same bits: it takes less than to wait.
        code.call(
            combine,
            run.doubles("statistics", (run.of_layer(layer, const(0)), 2 * CHANNELS)),
            run.floats("counts"),
            run.groups,
            run.floats("norm_weights", (layer, CHANNELS)),
            run.floats("norm_biases", (layer, CHANNELS)),
            run.floats("norms", (layer, 4 * CHANNELS)),
        )
        run.each_group(normalization)

    return emit


def emit_backward_pass(module: ir.Module, *, batch_norm: bool, skip: int, lanes: int) -> None:
    """Writes `backward(frame, thread, threads)`: from the features' gradient to the parameters'.

    The arguments are those of `emit_forward_pass`.
    """
    run_inner = _inner_gradients(module, batch_norm=batch_norm, skip=skip, lanes=lanes)
    of_weights = {
        shape: convolutions.emit_weight_gradient(
            module, f"_{name}_weights", shape, lanes=lanes, at_once=at_once
        )
        for name, shape, at_once in (("widen", WIDEN, 3), ("halve", HALVE, 2), ("tail", TAIL, 4))
    }
    of_input = {
        shape: convolutions.emit_input_gradient(
            module, f"_{name}_input", shape, lanes=lanes, add=False
        )
        for name, shape in (("halve", HALVE), ("tail", TAIL))
    }
    totals = {
        area: elementwise.emit_totals(module, f"_totals_{area}", area=area, lanes=lanes)
        for area in (AREA, WIDEN.output_size**2)
    }
    run = Pass(module, "backward", lanes=lanes)
    code = run.code

    def begin(group: Value) -> None:
        slopes = run.vectors("feature_slopes", (group, TAIL.output_vectors))
        code.call(
            of_weights[TAIL],
            run.vectors("activations", (run.of_layer(run.layers, group), PLANE)),
            slopes,
            run.vectors("scratch", (run.thread, SCRATCH)),
            run.floats("tail_gradients", (group, TAIL.weights)),
        )
        below = run.slopes(run.layers, group)
        code.call(of_input[TAIL], slopes, run.floats("tail_transposed"), below)

    def end(group: Value) -> None:
        scratch = run.vectors("scratch", (run.thread, SCRATCH))
        slopes = run.slopes(const(0), group)
        widened = run.vectors("widened", (group, WIDEN.output_vectors))
        below = run.vectors("widened_slopes", (run.thread, WIDEN.output_vectors))
        code.call(totals[AREA], slopes, run.floats("halve_bias_gradients", (group, CHANNELS)))
        code.call(
            of_weights[HALVE],
            widened,
            slopes,
            scratch,
            run.floats("halve_gradients", (group, HALVE.weights)),
        )
        code.call(of_input[HALVE], slopes, run.floats("halve_transposed"), below)
        code.call(
            totals[WIDEN.output_size**2],
            below,
            run.floats("widen_bias_gradients", (group, CHANNELS)),
        )
        code.call(
            of_weights[WIDEN],
            run.vectors("images", (group, WIDEN.input_vectors)),
            below,
            scratch,
            run.floats("widen_gradients", (group, WIDEN.weights)),
        )

    run.each_group(begin)
    run.each_layer(skip, lambda layer, position: run_inner(run, layer, position), backward=True)
    run.each_group(end)
    code.close()


def _inner_gradients(
    module: ir.Module, *, batch_norm: bool, skip: int, lanes: int
) -> Callable[[Pass, Value, Position], None]:
    """Returns what writes the backward pass through one layer of a block."""
    through_relu = {
        keep: elementwise.emit_relu_gradient(
            module, f"_relu_{keep}", area=AREA, lanes=lanes, normalized=batch_norm, keep=keep
        )
        for keep in {False, skip > 0}
    }
    if batch_norm:
        combine = elementwise.emit_normalization_sums(module, "_combine_sums", lanes=lanes)
        through_norm = elementwise.emit_normalization_gradient(
            module, "_norm", area=AREA, lanes=lanes
        )
    of_weights = convolutions.emit_weight_gradient(
        module, "_inner_weights", INNER, lanes=lanes, at_once=2
    )
    of_input = {
        add: convolutions.emit_input_gradient(
            module, f"_inner_input_{add}", INNER, lanes=lanes, add=add
        )
        for add in {False, skip > 0}
    }

    def emit(run: Pass, layer: Value, position: Position) -> None:
        code = run.code
        above = code.builder.add(layer, const(1))
        norms = run.floats("norms", (layer, 4 * CHANNELS))
        norm_gradients = run.floats("norm_gradients", (layer, 5 * CHANNELS))

        def of_layer(name: str, layer: Value, group: Value) -> Value:
            return run.vectors(name, (run.of_layer(layer, group), PLANE))

        def sums(group: Value) -> Value:
            return run.floats("norm_sums", (run.of_layer(layer, group), 2 * CHANNELS))

        def relu(group: Value) -> None:
            keep = position.ends_skip
            code.call(
                through_relu[keep],
                run.slopes(above, group),
                of_layer("activations", above, group),
                *([of_layer("convolved", layer, group), norms] if batch_norm else []),
                *([run.vectors("kept_slopes", (group, PLANE))] if keep else []),
                sums(group),
            )

        def convolution(group: Value) -> None:
            if batch_norm:
                code.call(
                    through_norm,
                    run.slopes(above, group),
                    of_layer("convolved", layer, group),
                    norms,
                    code.at(norm_gradients, 2 * CHANNELS),
                    run.vectors("masks", (group, 1)),
                )
            code.call(
                of_weights,
                of_layer("activations", layer, group),
                run.slopes(above, group),
                run.vectors("scratch", (run.thread, SCRATCH)),
                run.floats("inner_gradients", (run.of_layer(layer, group), INNER.weights)),
            )
            add = position.starts_skip
            code.call(
                of_input[add],
                run.slopes(above, group),
                run.floats("inner_transposed", (layer, INNER.weights)),
                *([run.vectors("kept_slopes", (group, PLANE))] if add else []),
                run.slopes(layer, group),
            )

        run.each_group(relu)
        if batch_norm:
            run.wait_for_all()
            code.call(
                combine,
                run.floats("norm_sums", (run.of_layer(layer, const(0)), 2 * CHANNELS)),
                run.groups,
                code.load(run.doubles("pixels")),
                code.at(norms, CHANNELS),
                run.floats("norm_weights", (layer, CHANNELS)),
                norm_gradients,
            )
        run.each_group(convolution)

    return emit


def emit_inference_pass(module: ir.Module, *, skip: int, lanes: int) -> None:
    """Writes `infer(frame, thread, threads)`: from images to features, batch norms folded.

    Between the layers it holds one group a thread, which stays in the
    processor's caches. The arguments are those of `emit_forward_pass`.
    """
    widen, halve, tail = _outer_convolutions(module, lanes=lanes)
    inner = {
        add: convolutions.emit_forward(
            module, f"_inner_{add}", INNER, lanes=lanes, add=add, relu=True
        )
        for add in {False, skip > 0}
    }
    run = Pass(module, "infer", lanes=lanes)
    code = run.code
    widened = run.vectors("widened", (run.thread, WIDEN.output_vectors))

    def activations(layer: Value) -> Value:
        """What goes into a layer: layers read and write two places in turn."""
        return run.vectors("activations", (run.thread, 2 * PLANE), (code.is_odd(layer), PLANE))

    def at_group(group: Value) -> None:
        images = run.vectors("images", (group, WIDEN.input_vectors))
        code.call(widen, images, run.floats("widen_weights"), run.floats("widen_biases"), widened)
        code.call(
            halve,
            widened,
            run.floats("halve_weights"),
            run.floats("halve_biases"),
            activations(const(0)),
        )

        def at_layer(layer: Value, position: Position) -> None:
            skipped = activations(code.builder.sub(layer, const(skip - 1)))
            code.call(
                inner[position.ends_skip],
                activations(layer),
                run.floats("inner_weights", (layer, INNER.weights)),
                run.floats("inner_biases", (layer, CHANNELS)),
                # With a skip of two it is read where the result then overwrites it.
                *([skipped] if position.ends_skip else []),
                activations(code.builder.add(layer, const(1))),
            )

        run.each_layer(skip, at_layer)
        code.call(
            tail,
            activations(run.layers),
            run.floats("tail_weights"),
            run.floats("tail_biases"),
            run.vectors("features", (group, TAIL.output_vectors)),
        )

    run.each_group(at_group)
    code.close()
