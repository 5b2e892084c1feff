"""Writes entry points, which run a network's layers by calling kernels.

The threads of a `ThreadTeam` run an entry point together, each on a share of the
groups. Where a batch norm needs the statistics of all groups, they wait at a barrier.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llvmlite import ir

from leadline.models.simd.emitter import Emitter, const
from leadline.models.simd.fields import INNER_LAYER, PLANE, Field, Layer
from leadline.models.simd.signatures import ENTRY_POINT, I32, Kernel, Kind, Value

# How often a thread checks the barrier before it yields its core.
_SPINS = 4096


@dataclass(frozen=True, kw_only=True)
class Position:
    """A convolution's position within the span of an identity connection."""

    starts_skip: bool
    """Whether the identity connection starts at this convolution's input."""

    ends_skip: bool
    """Whether the identity is added to this convolution's result."""


class KernelBuilder:
    """Writes an entry point: its argument block, and the calling thread's share of the groups."""

    def __init__(self, module: ir.Module, name: str, *, lanes: int) -> None:
        self.code = code = Emitter(module, name, ENTRY_POINT, lanes=lanes)
        self.thread, self.threads = code.arguments.thread, code.arguments.threads
        self.groups, self.layers = self.number(Field.GROUPS), self.number(Field.LAYERS)
        share = code.builder.mul(self.groups, self.thread)
        next_share = code.builder.mul(self.groups, code.builder.add(self.thread, const(1)))
        self._first = code.builder.sdiv(share, self.threads)
        self._last = code.builder.sdiv(next_share, self.threads)

    def number(self, field: Field) -> Value:
        """A number, or an address as a number."""
        return self.code.load(self.code.arguments.args, field.index)

    def address(self, field: Field, *terms: tuple[Value, int], kind: Kind | None = None) -> Value:
        """The address of an array, plus indices times their strides in elements.

        `kind` is the type of the elements, by default the field's.
        """
        pointer = (kind or field.kind).llvm_type(self.code.lanes)
        start = self.code.builder.inttoptr(self.number(field), pointer)
        return self.code.at(start, self.code.offset(*terms))

    def plane(self, field: Field, layer: Value, group: Value) -> Value:
        """The address of a group's activations in a layer inside the blocks."""
        return self.address(field, (self.index(layer, group), PLANE))

    def grad_output(self, layer: Value, group: Value) -> Value:
        """The address of the gradient of a layer's input; layers alternate between two buffers."""
        return self.plane(Field.GRAD_OUTPUT, self.code.is_odd(layer), group)

    def index(self, layer: Value, group: Value) -> Value:
        """The index of a group's entry in an array [layers][groups]."""
        return self.code.builder.add(self.code.builder.mul(layer, self.groups), group)

    def convolve(
        self,
        kernel: Kernel,
        layer: Layer,
        *,
        images: Value,
        result: Value,
        addend: Value | None = None,
        number: Value | None = None,
    ) -> None:
        """Calls a convolution kernel with a layer's parameters.

        `number` is the layer's number inside the blocks. A kernel may read the numbers of
        all outputs as a vector.
        """
        kind, shape = kernel.signature.kinds["weights"], layer.shape
        width = shape.outputs if kind is Kind.VECTORS else 1
        self.code.call(
            kernel,
            images=images,
            weights=self.parameters(layer.weights, number, shape.weights // width, kind),
            biases=self.parameters(layer.biases, number, shape.outputs // width, kind),
            addend=addend,
            result=result,
        )

    def convolve_blocks(
        self,
        skip: int,
        kernels: Mapping[bool, Kernel],
        read: Callable[[Value], Value],
        write: Callable[[Value], Value],
    ) -> None:
        """Writes the convolutions inside the blocks, in inference.

        `kernels` says by key whether a kernel adds an identity. `read` returns the address of
        a layer's input, and `write` the address at which the previous layer writes it.
        """
        builder = self.code.builder

        def at_layer(layer: Value, position: Position) -> None:
            skipped = write(builder.sub(layer, const(skip - 1)))
            self.convolve(
                kernels[position.ends_skip],
                INNER_LAYER,
                images=read(layer),
                # With a skip of two, the result overwrites each pixel after it is read here.
                addend=skipped if position.ends_skip else None,
                result=write(builder.add(layer, const(1))),
                number=layer,
            )

        self.each_layer(skip, at_layer)

    def parameters(
        self, field: Field, number: Value | None, stride: int, kind: Kind | None = None
    ) -> Value:
        """The address of the parameters of layer `number`, or of the only layer if it is None."""
        terms = [] if number is None else [(number, stride)]
        return self.address(field, *terms, kind=kind)

    def each_group(self, body: Callable[[Value], None]) -> None:
        """Loops over the calling thread's share of the groups."""
        self.code.loop(self._first, self._last, lambda group, _: body(group))

    def each_layer(
        self, skip: int, body: Callable[[Value, Position], None], *, backward: bool = False
    ) -> None:
        """Loops over the convolutions inside the blocks; if `backward`, from the last to the first.

        The body gets a layer's number, and its position in an identity connection.
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

    def wait_for_all(self) -> None:
        """Waits at the barrier until every thread has arrived: a spin wait that yields.

            arrived = atomic_add(barrier, 1)                 # arrivals before this one
            goal = (arrived / threads + 1) * threads         # the end of this round
            while atomic_load(barrier) < goal:
                spins += 1
                if spins > 4096: sched_yield()

        The counter only grows, so threads that arrive for the next round do not affect a
        thread that still waits in this one.
        """
        builder = self.code.builder
        counter = self.address(Field.BARRIER)
        arrived = builder.atomic_rmw("add", counter, const(1), "acq_rel")
        rounds = builder.add(builder.sdiv(arrived, self.threads), const(1))
        goal = builder.mul(rounds, self.threads)
        sched_yield = self.code.declared("sched_yield", ir.FunctionType(I32, []))

        def is_early() -> Value:
            return builder.icmp_signed("<", builder.load_atomic(counter, "acquire", 8), goal)

        def spin(spins: Value) -> Value:
            spins = builder.add(spins, const(1))
            with builder.if_then(builder.icmp_signed(">", spins, const(_SPINS))):
                builder.call(sched_yield, [])
            return spins

        self.code.while_(is_early, spin, const(0))
