"""Frames of torch's tensors."""

from torch import Tensor

from leadline.models.simd.frame import Frame


class TensorFrame(Frame):
    """What a pass is told, where tensors lie at the addresses."""

    def __init__(self) -> None:
        super().__init__()
        self._tensors: dict[str, Tensor] = {}

    def place(self, name: str, tensor: Tensor) -> Tensor:
        """Sets an address, and returns the tensor."""
        if not tensor.is_contiguous():
            raise ValueError(f"{name} is not contiguous")
        self._tensors[name] = tensor
        self.point(name, tensor.data_ptr(), tensor)
        return tensor

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]
