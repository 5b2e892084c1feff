"""The names and types of kernel arguments."""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from llvmlite import ir

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
F32, F64 = ir.FloatType(), ir.DoubleType()

Value = Any  # llvmlite's values are not typed


class Kind(Enum):
    """The type of a kernel's argument: a number, or the address of an array."""

    VECTORS = auto()
    """Address of vectors, float32 [..., lanes], aligned to a vector's size."""

    BYTES = auto()  # address of uint8
    FLOATS = auto()  # address of float32
    DOUBLES = auto()  # address of float64
    INTEGERS = auto()  # address of int64
    FLOAT = auto()
    DOUBLE = auto()
    INTEGER = auto()

    def llvm_type(self, lanes: int) -> Any:
        """Returns the type in LLVM's intermediate representation."""
        if self in _NUMBERS:
            return _NUMBERS[self][0]
        return _ELEMENTS.get(self, ir.VectorType(F32, lanes)).as_pointer()

    @property
    def c_type(self) -> Any:
        """The `ctypes` type."""
        return _NUMBERS[self][1] if self in _NUMBERS else ctypes.c_void_p


_ELEMENTS = {Kind.BYTES: I8, Kind.FLOATS: F32, Kind.DOUBLES: F64, Kind.INTEGERS: I64}
_NUMBERS = {
    Kind.FLOAT: (F32, ctypes.c_float),
    Kind.DOUBLE: (F64, ctypes.c_double),
    Kind.INTEGER: (I64, ctypes.c_int64),
}


class KernelSignature:
    """The named arguments of a kernel, in the order of the compiled function.

    Args:
        kinds: the type of each argument; None if the kernel variant lacks it.
    """

    def __init__(self, **kinds: Kind | None) -> None:
        self.kinds = {name: kind for name, kind in kinds.items() if kind is not None}

    def ordered(self, arguments: Mapping[str, Any]) -> list[Any]:
        """Returns arguments in the order of the compiled function; omits those that are None.

        Raises:
            TypeError: an argument is missing or unknown.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        if given.keys() != self.kinds.keys():
            raise TypeError(f"the kernel takes {', '.join(self.kinds)}, not {', '.join(given)}")
        return [given[name] for name in self.kinds]


@dataclass(frozen=True)
class Kernel:
    """A function of a module that other functions call by `Emitter.call`."""

    signature: KernelSignature
    function: ir.Function


ENTRY_POINT = KernelSignature(args=Kind.INTEGERS, thread=Kind.INTEGER, threads=Kind.INTEGER)
"""Called by Python, with the address of `KernelArgs` and the number and count of threads."""
