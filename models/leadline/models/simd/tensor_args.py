"""Argument blocks of torch's tensors."""

import torch
from torch import Tensor

from leadline.models.simd.fields import Field
from leadline.models.simd.kernel_args import KernelArgs
from leadline.models.simd.signatures import Kind

_DTYPES = {Kind.BYTES: torch.uint8, Kind.DOUBLES: torch.float64}


class TensorArgs(KernelArgs):
    """A `KernelArgs` whose arrays are tensors in main memory."""

    def __init__(self) -> None:
        super().__init__()
        self._tensors: dict[Field, Tensor] = {}

    def set_tensor(self, field: Field, tensor: Tensor) -> None:
        """Sets the address of a tensor, which shares its memory with the kernels.

        Raises:
            ValueError: the tensor is not contiguous, or its type is not the field's.
        """
        # Called fourteen times a step; `Tensor.numpy` alone would take longer.
        dtype = _DTYPES.get(field.kind, torch.float32)
        if not tensor.is_contiguous() or tensor.dtype is not dtype:
            raise ValueError(
                f"{field.name} must be contiguous {dtype}, "
                f"not {tensor.dtype} with strides {tensor.stride()}"
            )
        self._tensors[field] = tensor
        self.set_address(field, tensor.data_ptr(), tensor)

    def __getitem__(self, field: Field) -> Tensor:
        return self._tensors[field]
