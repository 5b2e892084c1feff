"""The argument block of compiled kernels."""

import numpy as np
from numpy.typing import NDArray

from leadline.models.simd.fields import Field
from leadline.models.simd.signatures import Kind

_DTYPES = {
    Kind.VECTORS: np.float32,
    Kind.BYTES: np.uint8,
    Kind.FLOATS: np.float32,
    Kind.DOUBLES: np.float64,
    Kind.INTEGERS: np.int64,
}
_ALIGNMENT = 64


class KernelArgs:
    """Numbers and addresses of arrays, one for each `Field`; keeps the arrays alive."""

    def __init__(self) -> None:
        self._block = np.zeros(len(Field), np.int64)
        self._owners: dict[Field, object] = {}
        self.address = int(self._block.ctypes.data)
        self._barrier = np.zeros(1, np.int64)
        self.set_array(Field.BARRIER, self._barrier)

    def reset_barrier(self) -> None:
        """Sets the number of arrivals at the barrier to zero."""
        self._barrier[0] = 0

    def set_number(self, field: Field, value: int) -> None:
        """Sets a number."""
        self._block[field.index] = value

    def number(self, field: Field) -> int:
        """Returns a number."""
        return int(self._block[field.index])

    def set_array(self, field: Field, array: NDArray[np.generic]) -> None:
        """Sets the address of an array.

        Raises:
            ValueError: the array is not contiguous, or its type is not the field's.
        """
        if not array.flags.c_contiguous or array.dtype != _DTYPES[field.kind]:
            raise ValueError(
                f"{field.name} must be contiguous {np.dtype(_DTYPES[field.kind])}, "
                f"not {array.dtype} with strides {array.strides}"
            )
        self.set_address(field, array.ctypes.data, array)

    def set_address(self, field: Field, address: int, owner: object) -> None:
        """Sets an address, and keeps the owner of its memory alive."""
        self._owners[field] = owner
        self._block[field.index] = address


def aligned_zeros(*shape: int) -> NDArray[np.float32]:
    """Returns zeros, float32, aligned for vectors of any width."""
    size = 4 * int(np.prod(shape))
    memory = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)
