"""Argument blocks over torch's tensors."""

from torch import Tensor

from leadline.models.simd.fields import Field
from leadline.models.simd.kernel_args import KernelArgs


class TensorArgs(KernelArgs):
    """A `KernelArgs` whose arrays are tensors in main memory."""

    def __init__(self) -> None:
        super().__init__()
        self._tensors: dict[Field, Tensor] = {}

    def set_tensor(self, field: Field, tensor: Tensor) -> None:
        """Sets the address of a tensor, which shares its memory with the kernels.

        Raises:
            ValueError: the tensor is not contiguous, or of another type than the field.
        """
        self.set_array(field, tensor.numpy())
        self._tensors[field] = tensor

    def __getitem__(self, field: Field) -> Tensor:
        return self._tensors[field]
