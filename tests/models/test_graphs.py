"""Functions with captured graphs, and their fallback if a capture fails.

A CPU has no graphs, so a replay here runs the function again, with the same effect for its caller.
"""

import logging
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from leadline.models.cuda import CudaEngine
from leadline.models.engine import Engine, TorchEngine
from leadline.models.graphs import GraphedFunction, Graphs
from leadline.models.network import Architecture, BlockNetwork

CPU = torch.device("cpu")


def rerun(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Callable[[], Tensor]:
    """Runs the function before the capture, and at each replay."""
    function(*inputs)
    return lambda: function(*inputs)


def fail(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Callable[[], Tensor]:
    """Fails after the function has run, like a late failure of a capture."""
    function(*inputs)
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


def run_out(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Callable[[], Tensor]:
    """Fails for lack of memory for a graph."""
    function(*inputs)
    raise torch.OutOfMemoryError("CUDA out of memory")


def network_of(*, batch_norm: bool) -> BlockNetwork:
    torch.manual_seed(0)
    return BlockNetwork(Architecture(blocks=2, batch_norm=batch_norm))


def batch_of(images: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (images, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return pixels, torch.randint(0, 10, (images,), generator=generator)


def trained(network: BlockNetwork, engine: Engine) -> list[Tensor]:
    """Returns the results of some steps and evaluations with two batch sizes."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    results = []
    for step in range(4):
        results.append(engine.gradients(*batch_of(20 if step < 3 else 7, seed=step)))
        results += [value.grad.clone() for value in network.parameters() if value.grad is not None]
        optimizer.step()
        engine.prepare()
        results.append(engine.logits(batch_of(11, seed=9)[0]))
    return [*results, *network.state_dict().values()]


@pytest.mark.parametrize("capture", [rerun, fail, run_out])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_training_is_the_same_to_the_bit_with_graphs_and_without(
    capture: Callable[..., Callable[[], Tensor]], batch_norm: bool, autocast: torch.dtype | None
) -> None:
    graphed, plain = network_of(batch_norm=batch_norm), network_of(batch_norm=batch_norm)

    results = trained(graphed, CudaEngine(graphed, autocast, graphs=Graphs(capture)))
    expected = trained(plain, TorchEngine(plain, autocast))

    assert len(results) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(results, expected, strict=True))


def test_a_failed_capture_is_warned_of_once_and_not_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried = []

    def capture(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Callable[[], Tensor]:
        tried.append(len(inputs[0]))
        return fail(function, inputs)

    graphs = Graphs(capture)
    for batch_norm in (False, True):
        network = network_of(batch_norm=batch_norm)
        trained(network, CudaEngine(network, graphs=graphs))

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith(
        "RuntimeError: operation not permitted when stream is capturing"
    )
    assert tried == [20]
    assert graphs.failure is not None


def test_graphs_that_were_captured_before_are_given_up_too() -> None:
    sizes = []

    def capture(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Callable[[], Tensor]:
        if len(inputs[0]) == 7:
            return fail(function, inputs)
        return lambda: torch.full((), -1.0)

    def function(values: Tensor) -> Tensor:
        sizes.append(len(values))
        return values.sum()

    graphed = GraphedFunction(function, device=CPU, graphs=Graphs(capture))

    assert graphed(torch.ones(4)) == -1
    assert [graphed(torch.ones(count)).item() for count in (7, 4)] == [7, 4]
    assert sizes == [7, 7, 4]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_what_fails_without_a_graph_too_is_raised_as_itself(
    error: type[RuntimeError], caplog: pytest.LogCaptureFixture
) -> None:
    def function(values: Tensor) -> Tensor:
        raise error(f"{len(values)} are too many")

    graphs = Graphs(rerun)
    graphed = GraphedFunction(function, device=CPU, graphs=graphs)

    with pytest.raises(error, match="9 are too many") as caught:
        graphed(torch.ones(9))

    assert type(caught.value) is error
    assert caught.value.__context__ is None
    assert graphs.failure is None
    assert not caplog.records


def test_an_error_of_the_program_is_no_failed_capture() -> None:
    def capture(*_: object) -> Callable[[], Tensor]:
        raise TypeError("of another kind")

    graphed = GraphedFunction(torch.sum, device=CPU, graphs=Graphs(capture))

    with pytest.raises(TypeError, match="of another kind"):
        graphed(torch.ones(2))


def test_a_loss_that_is_no_number_is_none_of_the_captures_business(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = network_of(batch_norm=False)
    with torch.no_grad():
        network.tail.weight.fill_(float("nan"))
    graphs = Graphs(rerun)

    loss = CudaEngine(network, graphs=graphs).gradients(*batch_of(5, seed=1))

    assert loss.isnan()
    assert graphs.failure is None
    assert not caplog.records


def test_a_batch_is_filled_up_to_the_next_size() -> None:
    captured = []

    def capture(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Callable[[], Tensor]:
        captured.append(len(inputs[0]))
        return rerun(function, inputs)

    graphed = GraphedFunction(
        lambda values: values * 2, device=CPU, sizes=(2, 4), graphs=Graphs(capture)
    )

    results = [graphed(torch.arange(count))[:count].tolist() for count in (1, 3, 4, 2)]

    assert results == [[0], [0, 2, 4], [0, 2, 4, 6], [0, 2]]
    assert captured == [2, 4]
