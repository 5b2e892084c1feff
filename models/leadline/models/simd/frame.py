"""What passes are told, and who goes through them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

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
    """What a pass is told: numbers, and the addresses of arrays, which it keeps."""

    def __init__(self) -> None:
        self._fields = np.zeros(len(FIELDS), np.int64)
        self._kept: dict[str, object] = {}
        self.address = int(self._fields.ctypes.data)
        self._barrier = np.zeros(1, np.int64)
        self.place_array("barrier", self._barrier)

    def clear_barrier(self) -> None:
        """Forgets how often threads have come to the barrier."""
        self._barrier[0] = 0

    def number(self, name: str, value: int) -> None:
        """Sets a number."""
        self._fields[FIELDS.index(name)] = value

    def read(self, name: str) -> int:
        """Returns a number."""
        return int(self._fields[FIELDS.index(name)])

    def place_array(self, name: str, array: NDArray[np.generic]) -> None:
        """Sets the address of an array."""
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} is not contiguous")
        self.point(name, int(array.ctypes.data), array)

    def point(self, name: str, address: int, owner: object) -> None:
        """Sets an address, and keeps what lies there."""
        self._kept[name] = owner
        self.number(name, address)
