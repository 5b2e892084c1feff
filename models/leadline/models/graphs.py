"""Runs functions on a GPU as captured graphs, or kernel by kernel where no capture succeeds."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LOG = logging.getLogger(__name__)

# The number that PyTorch's notes on graphs recommend before a capture.
_WARM_UPS = 3

Capture = Callable[[Callable[..., Tensor], Sequence[Tensor]], Callable[[], Tensor]]
"""Takes a function and its inputs; returns a callable that reruns it on their new contents."""


def capture_graph(
    function: Callable[..., Tensor], inputs: Sequence[Tensor]
) -> Callable[[], Tensor]:
    """Captures the kernels that a function launches on its inputs' GPU.

    Calls the function several times, so its effects must be the same each time. A
    replay reads the inputs in place.

    Source: the PyTorch notes on CUDA graphs.

    Returns:
        A callable that replays the graph and returns its result, which the next
        replay overwrites.

    Raises:
            RuntimeError: torch, the driver or a library rejects the capture, or memory is short.
    """
    # A capture that fails may leave its stream as the current one: only later
    # versions of torch restore the previous stream.
    device = inputs[0].device
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
        # The first calls initialise libraries, which must not be captured.
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call,unused-ignore]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                function(*inputs)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = function(*inputs)

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


class Graphs:
    """Whether this process captures graphs: it does until a capture fails."""

    def __init__(self, capture: Capture = capture_graph) -> None:
        self.capture = capture
        self.failure: str | None = None
        """Why no graphs are captured any more; None until a capture fails."""

    def give_up(self, failure: str) -> None:
        """Stops capturing graphs, and warns once."""
        if self.failure is None:
            self.failure = failure
            _LOG.warning(
                "no graph could be captured on this GPU: this process continues without graphs, "
                "more slowly but with the same results; `leadline doctor` tests the GPU; "
                "the reason: %s",
                failure,
            )


_OF_THIS_PROCESS = Graphs()


@dataclass(frozen=True)
class _Captured:
    places: tuple[Tensor, ...]
    replay: Callable[[], Tensor]

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        for place, value in zip(self.places, inputs, strict=True):
            place[: len(value)].copy_(value)
        return self.replay()


class GraphedFunction:
    """A function of batches that runs as one captured graph for each batch size.

    If a capture fails, it restores the state and runs the function without a graph,
    as do all later calls of the process. If the capture was not the cause, that run
    raises the error itself, without a warning. Examples are too little device memory,
    a failed kernel, or an input of a wrong shape.

    Not thread-safe.

    Args:
        function: takes tensors on the device that have a row for each image. It
            is called several times before a capture, so its effects must be the
            same each time.
        state: returns the tensors that the function changes.
        sizes: batch sizes, ascending: a smaller batch is padded to the next size
            with arbitrary rows. Without them each batch size has a graph.
        graphs: shared by the functions that stop using graphs together after a
            failure; by default one for the process.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        *,
        device: torch.device,
        state: Callable[[], Iterable[Tensor]] = tuple,
        sizes: Sequence[int] = (),
        graphs: Graphs | None = None,
    ) -> None:
        self._function = function
        self._device = device
        self._state = state
        self._sizes = sizes
        self._graphs = graphs or _OF_THIS_PROCESS
        self._captured: dict[int, _Captured] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Returns the function's result, which the next call may overwrite.

        Args:
            inputs: on any device. The result of a padded batch includes the
                additional rows.
        """
        if self._graphs.failure is not None:
            self._captured.clear()  # frees their memory
            return self._run(inputs)
        count = len(inputs[0])
        size = next((size for size in self._sizes if size >= count), count)
        captured = self._captured.get(size)
        return captured(inputs) if captured else self._capture_and_run(size, inputs)

    def _run(self, inputs: Sequence[Tensor]) -> Tensor:
        return self._function(*(value.to(self._device) for value in inputs))

    def _capture_and_run(self, size: int, inputs: Sequence[Tensor]) -> Tensor:
        kept = [value.clone() for value in self._state()]
        failure = None
        try:
            self._captured[size] = self._capture(size, inputs)
        except RuntimeError as error:
            # Keeps the message only: the traceback would hold device memory.
            failure = _first_line(error)
        with torch.no_grad():
            for value, former in zip(self._state(), kept, strict=True):
                value.copy_(former)
        if failure is None:
            return self._captured[size](inputs)
        result = self._run(inputs)
        self._graphs.give_up(failure)
        return result

    def _capture(self, size: int, inputs: Sequence[Tensor]) -> _Captured:
        places = tuple(self._place(size, value) for value in inputs)
        return _Captured(places, self._graphs.capture(self._function, places))

    def _place(self, size: int, example: Tensor) -> Tensor:
        place = torch.zeros((size, *example.shape[1:]), dtype=example.dtype, device=self._device)
        place[: len(example)].copy_(example)
        return place


def _first_line(error: RuntimeError) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'it says nothing'}"
