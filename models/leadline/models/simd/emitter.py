"""Writes loops over lanes of numbers in LLVM's intermediate representation."""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
F32, F64 = ir.FloatType(), ir.DoubleType()

Value = Any  # llvmlite's values are not typed
Body = Callable[[Value, list[Value]], Sequence[Value] | None]


def const(value: int) -> Value:
    """An integer that is known when the code is written."""
    return ir.Constant(I64, value)


class Emitter:
    """Writes one function.

    A lane is one number of a vector register, and holds one image: whatever a
    function does to a pixel it does to the same pixel of `lanes` images.

    Args:
        module: where the function goes.
        name: the function's.
        parameters: the types of its arguments.
        lanes: numbers in a vector.
    """

    def __init__(
        self, module: ir.Module, name: str, parameters: Sequence[Any], *, lanes: int
    ) -> None:
        self.module = module
        self.lanes = lanes
        self.vector = ir.VectorType(F32, lanes)
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), parameters), name)
        if name.startswith("_"):
            self.function.linkage = "internal"
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.arguments = self.function.args

    def loop(
        self,
        start: Value,
        stop: Value,
        body: Body,
        carried: Sequence[Value] = (),
        *,
        step: Value | None = None,
    ) -> list[Value]:
        """Calls `body(index, carried)` from `start` until `stop`, excluded.

        What the body returns is what is carried to its next round; the loop
        returns what is carried out of its last.
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

    def pixels(
        self, count: int, body: Callable[[Value, list[Value]], list[Value]], sums: int
    ) -> list[Value]:
        """Calls `body(pixel, sums)` for each of `count` pixels, and returns the sums over all.

        Several pixels are dealt with at once, each with sums of its own, so that
        no addition waits for the one before.
        """
        at_once = next(number for number in (4, 3, 2, 1) if count % number == 0)

        def at_pixels(start: Value, carried: Sequence[Value]) -> list[Value]:
            results: list[Value] = []
            for number in range(at_once):
                own = list(carried[number * sums : (number + 1) * sums])
                results += body(self.builder.add(start, const(number)), own)
            return results

        carried = [self.zero()] * (sums * at_once)
        carried = self.loop(const(0), const(count), at_pixels, carried, step=const(at_once))
        totals = carried[:sums]
        for number in range(1, at_once):
            own = carried[number * sums : (number + 1) * sums]
            totals = [self.builder.fadd(*pair) for pair in zip(totals, own, strict=True)]
        return totals

    def offset(self, *terms: tuple[Value, int]) -> Value:
        """The sum of indices, each times its stride."""
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
        """Reads an element; a vector lies at a multiple of its size."""
        address = self.at(pointer, index)
        return self.builder.load(address, align=self._alignment(address))

    def store(self, value: Value, pointer: Value, index: Value | int = 0) -> None:
        """Writes an element; a vector lies at a multiple of its size."""
        address = self.at(pointer, index)
        self.builder.store(value, address, align=self._alignment(address))

    def splat(self, scalar: Value) -> Value:
        """A vector whose every lane is the scalar."""
        nothing = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(nothing, scalar, ir.Constant(I32, 0))
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, nothing, zeros)

    def zero(self) -> Value:
        """A vector of zeros."""
        return ir.Constant(self.vector, [0.0] * self.lanes)

    def fma(self, left: Value, right: Value, addend: Value) -> Value:
        """Left x right + addend, rounded once where the instruction set has fused multiply-add."""
        intrinsic = self.declared(
            f"llvm.fmuladd.v{self.lanes}f32", ir.FunctionType(self.vector, [self.vector] * 3)
        )
        return self.builder.call(intrinsic, [left, right, addend])

    def relu(self, value: Value) -> Value:
        """The positive lanes, and zero for the others; not a number stays what it is."""
        negative = self.builder.fcmp_ordered("<", value, self.zero())
        return self.builder.select(negative, self.zero(), value)

    def total(self, value: Value) -> Value:
        """The sum over the lanes, by halves."""
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

    def call(self, function: ir.Function, *arguments: Value) -> Value:
        """Calls a function of the module."""
        return self.builder.call(function, arguments)

    def declared(self, name: str, kind: ir.FunctionType) -> ir.Function:
        """A function that lies outside of the module: an intrinsic, or one of the process."""
        known = self.module.globals.get(name)
        return known or ir.Function(self.module, kind, name)

    def close(self) -> ir.Function:
        """Ends the function."""
        self.builder.ret_void()
        return self.function

    def _alignment(self, address: Value) -> int:
        kind = address.type.pointee
        return 4 * self.lanes if kind == self.vector else {F64: 8, F32: 4}.get(kind, 8)
