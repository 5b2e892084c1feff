"""Writes vectorised loops in LLVM's intermediate representation."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

from llvmlite import ir

from leadline.models.simd.signatures import F32, F64, I8, I32, I64, Kernel, KernelSignature, Value

Body = Callable[[Value, list[Value]], Sequence[Value] | None]

NestBody = Callable[[Sequence[Value], list[Value]], Sequence[Value] | None]


def const(value: int) -> Value:
    """An integer constant."""
    return ir.Constant(I64, value)


class Emitter:
    """Writes one function; a function whose name begins with "_" is private to the module.

    A lane is one number of a vector register, and holds one image. So an operation on
    a pixel applies to the same pixel of `lanes` images.
    """

    def __init__(
        self, module: ir.Module, name: str, signature: KernelSignature, *, lanes: int
    ) -> None:
        self.module = module
        self.signature = signature
        self.lanes = lanes
        self.vector = ir.VectorType(F32, lanes)
        parameters = [kind.llvm_type(lanes) for kind in signature.kinds.values()]
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), parameters), name)
        if name.startswith("_"):
            self.function.linkage = "internal"
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.arguments = SimpleNamespace(
            **dict(zip(signature.kinds, self.function.args, strict=True))
        )

    def loop(
        self,
        start: Value,
        stop: Value,
        body: Body,
        carried: Sequence[Value] = (),
        *,
        step: Value | None = None,
    ) -> list[Value]:
        """Calls `body(index, carried)` for each index from `start` up to, but excluding, `stop`.

        The body returns the carried values for its next call; the loop returns the
        carried values of the last call.
        """
        builder = self.builder
        before = builder.block
        head, inside, after = (builder.append_basic_block(name) for name in ("head", "in", "out"))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(I64)
        index.add_incoming(start, before)
        phis = [builder.phi(value.type) for value in carried]
        for phi, value in zip(phis, carried, strict=True):
            phi.add_incoming(value, before)
        builder.cbranch(builder.icmp_signed("<", index, stop), inside, after)
        builder.position_at_end(inside)
        results = body(index, phis) or ()
        index.add_incoming(builder.add(index, step or const(1)), builder.block)
        for phi, value in zip(phis, results, strict=True):
            phi.add_incoming(value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return phis

    def loop_nest(
        self,
        bounds: Sequence[Sequence[Value | int]],
        body: NestBody,
        carried: Sequence[Value] = (),
        outer: tuple[Value, ...] = (),
    ) -> list[Value]:
        """Nests loops, the last one innermost, and calls `body(indices, carried)` in it.

        Args:
            bounds: the start, the stop and optionally the step of each loop.
            body: as in `loop`, with the indices of all loops.
            carried: as in `loop`.
            outer: the indices of the enclosing loops.
        """
        (start, stop, *step), *inner = [
            [const(bound) if isinstance(bound, int) else bound for bound in values]
            for values in bounds
        ]

        def at_index(index: Value, carried: list[Value]) -> Sequence[Value] | None:
            indices = (*outer, index)
            if inner:
                return self.loop_nest(inner, body, carried, indices)
            return body(indices, carried)

        return self.loop(start, stop, at_index, carried, step=step[0] if step else None)

    def while_(
        self,
        condition: Callable[[], Value],
        body: Callable[[Value], Value],
        carried: Value,
    ) -> None:
        """Calls `body(carried)` as long as the condition, evaluated before each call, is true.

        The body returns the carried value for its next call.
        """
        builder = self.builder
        before = builder.block
        head, inside, after = (builder.append_basic_block(name) for name in ("head", "in", "out"))
        builder.branch(head)
        builder.position_at_end(head)
        phi = builder.phi(carried.type)
        phi.add_incoming(carried, before)
        builder.cbranch(condition(), inside, after)
        builder.position_at_end(inside)
        phi.add_incoming(body(phi), builder.block)
        builder.branch(head)
        builder.position_at_end(after)

    def pixels(
        self, count: int, body: Callable[[Value, list[Value]], list[Value]], sums: int
    ) -> list[Value]:
        """Calls `body(pixel, sums)` for each of `count` pixels, and returns the sums over all.

        Unrolls the loop by up to four pixels, each with separate sums, so that
        additions do not wait for one another.
        """
        unrolled = next(number for number in (4, 3, 2, 1) if count % number == 0)

        def at_pixels(start: Value, carried: Sequence[Value]) -> list[Value]:
            results: list[Value] = []
            for number in range(unrolled):
                own = list(carried[number * sums : (number + 1) * sums])
                results += body(self.builder.add(start, const(number)), own)
            return results

        carried = [self.zero()] * (sums * unrolled)
        carried = self.loop(const(0), const(count), at_pixels, carried, step=const(unrolled))
        totals = carried[:sums]
        for number in range(1, unrolled):
            own = carried[number * sums : (number + 1) * sums]
            totals = [self.builder.fadd(*pair) for pair in zip(totals, own, strict=True)]
        return totals

    def offset(self, *terms: tuple[Value, int]) -> Value:
        """The sum of indices times their strides."""
        total = const(0)
        for index, stride in terms:
            total = self.builder.add(total, self.builder.mul(index, const(stride)))
        return total

    def largest(self, left: Value, right: Value) -> Value:
        """The larger of two integers."""
        return self.builder.select(self.builder.icmp_signed(">", left, right), left, right)

    def smallest(self, left: Value, right: Value) -> Value:
        """The smaller of two integers."""
        return self.builder.select(self.builder.icmp_signed("<", left, right), left, right)

    def is_odd(self, value: Value) -> Value:
        """One for an odd integer, zero for an even one."""
        return self.builder.and_(value, const(1))

    def at(self, pointer: Value, index: Value | int) -> Value:
        """The address of an element."""
        return self.builder.gep(pointer, [const(index) if isinstance(index, int) else index])

    def load(self, pointer: Value, index: Value | int = 0) -> Value:
        """Reads an element; vectors are aligned to their size."""
        address = self.at(pointer, index)
        return self.builder.load(address, align=self._alignment(address))

    def store(self, value: Value, pointer: Value, index: Value | int = 0) -> None:
        """Writes an element; vectors are aligned to their size."""
        address = self.at(pointer, index)
        self.builder.store(value, address, align=self._alignment(address))

    def splat(self, scalar: Value) -> Value:
        """A vector with the scalar in every lane."""
        nothing = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(nothing, scalar, ir.Constant(I32, 0))
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, nothing, zeros)

    def zero(self) -> Value:
        """A vector of zeros."""
        return ir.Constant(self.vector, [0.0] * self.lanes)

    def fma(self, left: Value, right: Value, addend: Value) -> Value:
        """Left x right + addend, rounded once if the instruction set has fused multiply-add."""
        intrinsic = self.declared(
            f"llvm.fmuladd.v{self.lanes}f32", ir.FunctionType(self.vector, [self.vector] * 3)
        )
        return self.builder.call(intrinsic, [left, right, addend])

    def relu(self, value: Value) -> Value:
        """Replaces negative lanes by zero; NaN stays NaN."""
        negative = self.builder.fcmp_ordered("<", value, self.zero())
        return self.builder.select(negative, self.zero(), value)

    def total(self, value: Value) -> Value:
        """The sum over the lanes, computed by adding halves."""
        width = self.lanes
        while width > 1:
            width //= 2
            low, high = (self._part(value, start, width) for start in (0, width))
            value = self.builder.fadd(low, high)
        return self.builder.extract_element(value, ir.Constant(I32, 0))

    def _part(self, value: Value, start: int, width: int) -> Value:
        mask = ir.Constant(ir.VectorType(I32, width), list(range(start, start + width)))
        return self.builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)

    def root(self, value: Value) -> Value:
        """The square root of a double."""
        intrinsic = self.declared("llvm.sqrt.f64", ir.FunctionType(F64, [F64]))
        return self.builder.call(intrinsic, [value])

    def call(self, kernel: Kernel, **arguments: Value) -> None:
        """Calls a kernel of the module; omits arguments that are None.

        Raises:
            TypeError: an argument is missing or unknown.
        """
        self.builder.call(kernel.function, kernel.signature.ordered(arguments))

    def declared(self, name: str, kind: ir.FunctionType) -> ir.Function:
        """A function outside the module: an LLVM intrinsic, or a function of the process."""
        known = self.module.globals.get(name)
        return known or ir.Function(self.module, kind, name)

    def close(self) -> Kernel:
        """Ends the function."""
        self.builder.ret_void()
        return Kernel(self.signature, self.function)

    def _alignment(self, address: Value) -> int:
        kind = address.type.pointee
        return 4 * self.lanes if kind == self.vector else {F64: 8, F32: 4, I8: 1}.get(kind, 8)
