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

    def run(self, function: PassFunction, frame: "Frame", groups: int) -> None:
        """Runs a pass over so many groups, and returns when every thread is through."""
        # One without a group of its own would only wait, and keep a core busy with that.
        threads = min(self.threads, groups)
        frame.clear_barrier()  # which counts by the number of threads
        started = [
            self._others.submit(function, frame.address, thread, threads)
            for thread in range(1, threads)
            if self._others
        ]
        function(frame.address, 0, threads)
        for one in started:
            one.result()


class Frame:
    """What a pass is told: numbers, and the addresses of tensors, which it keeps."""

    def __init__(self) -> None:
        self._fields = torch.zeros(len(FIELDS), dtype=torch.int64)
        self._tensors: dict[str, Tensor] = {}
        self.address = self._fields.data_ptr()
        self._barrier = self.place("barrier", torch.zeros(1, dtype=torch.int64))

    def clear_barrier(self) -> None:
        """Forgets how often threads have come to the barrier."""
        self._barrier.zero_()

    def number(self, name: str, value: int) -> None:
        """Sets a number."""
        self._fields[FIELDS.index(name)] = value

    def read(self, name: str) -> int:
        """Returns a number."""
        return int(self._fields[FIELDS.index(name)])

    def place(self, name: str, tensor: Tensor) -> Tensor:
        """Sets an address, and returns the tensor."""
        if not tensor.is_contiguous():
            raise ValueError(f"{name} is not contiguous")
        self._tensors[name] = tensor
        self._fields[FIELDS.index(name)] = tensor.data_ptr()
        return tensor

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]
