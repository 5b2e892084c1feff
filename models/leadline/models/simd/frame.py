"""What passes are told, and who goes through them."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from leadline.models.simd.compiler import PassFunction
from leadline.models.simd.passes import FIELDS


class Crew:
    """Threads that go through a pass together; the caller is one of them."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._others = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def run(self, function: PassFunction, frame: "Frame") -> None:
        """Runs a pass, and returns when every thread is through."""
        address = frame.address
        if self._others is None:
            function(address, 0, 1)
            return
        started = [
            self._others.submit(function, address, thread, self.threads)
            for thread in range(1, self.threads)
        ]
        function(address, 0, self.threads)
        for one in started:
            one.result()


class Frame:
    """What a pass is told: numbers, and the addresses of tensors, which it keeps."""

    def __init__(self) -> None:
        self._fields = torch.zeros(len(FIELDS), dtype=torch.int64)
        self._tensors: dict[str, Tensor] = {}
        self.address = self._fields.data_ptr()

    def number(self, name: str, value: int) -> None:
        """Sets a number."""
        self._fields[FIELDS.index(name)] = value

    def place(self, name: str, tensor: Tensor) -> Tensor:
        """Sets an address, and returns the tensor."""
        if not tensor.is_contiguous():
            raise ValueError(f"{name} is not contiguous")
        self._tensors[name] = tensor
        self._fields[FIELDS.index(name)] = tensor.data_ptr()
        return tensor

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]
