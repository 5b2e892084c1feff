"""Compares all engines with exact results, in a separate process.

    python -m leadline.server.doctor.agreement cpu
    python -m leadline.server.doctor.agreement cuda:0

Each line of output is a JSON object. It is written at once, because a driver may hang in the next
step. With `gpus` instead of a device, the output describes the GPUs that torch detects.
"""

import copy
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from leadline.models.architecture import Architecture
from leadline.models.batches import normalize
from leadline.models.cuda import CudaEngine
from leadline.models.engine import Engine, SimdEngine, TorchEngine
from leadline.models.export import to_onnx
from leadline.models.graphs import Graphs
from leadline.models.initialization import initial_network
from leadline.models.network import BlockNetwork
from leadline.models.simd.inference import ExportedNetwork, Workspace
from leadline.models.simd.thread_team import ThreadTeam
from leadline.models.spec import Initialization

_IMAGES = 48
_CLASSES = 10


def networks() -> Iterator[tuple[str, BlockNetwork]]:
    """Yields the names and the networks to compare."""
    for batch_norm in (False, True):
        architecture = Architecture(blocks=2, batch_norm=batch_norm, classes=_CLASSES)
        network = initial_network(architecture, Initialization.DEFAULT, seed=0)
        yield ("with batch norm" if batch_norm else "without batch norm"), network


def batch(seed: int) -> tuple[Tensor, Tensor]:
    """Returns a batch of noise: uint8 [48, 32, 32, 3] and labels, int64 [48]."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (_IMAGES, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return pixels, torch.randint(0, _CLASSES, (_IMAGES,), generator=generator)


def measure(network: BlockNetwork, engine: Engine, device: torch.device) -> tuple[Tensor, Tensor]:
    """Computes two steps and an evaluation with an engine.

    With captured graphs, the second step is a replay.

    Returns:
        The gradients of the second step in one row, and the logits of a third batch; float64 on the
        CPU.
    """
    for seed in (1, 2):
        engine.gradients(*(tensor.to(device) for tensor in batch(seed)))
    gradients = torch.cat([_gradient(parameter).flatten() for parameter in network.parameters()])
    engine.prepare()
    return gradients, engine.logits(batch(3)[0].to(device)).cpu().double()


def reference(network: BlockNetwork) -> tuple[Tensor, Tensor]:
    """Computes what `measure` computes, in float64 with torch on the CPU."""
    exact = copy.deepcopy(network).double()
    for seed in (1, 2):
        pixels, labels = batch(seed)
        exact.zero_grad()
        loss = functional.cross_entropy(exact(normalize(pixels).double()), labels)
        loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
    gradients = torch.cat([_gradient(parameter).flatten() for parameter in exact.parameters()])
    with torch.no_grad():
        return gradients, exact.eval()(normalize(batch(3)[0]).double())


def difference(actual: Tensor, exact: Tensor) -> float:
    """Returns the norm of the difference relative to the norm of the exact values."""
    return float((actual - exact).norm() / exact.norm())


def _gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        raise RuntimeError("a parameter has no gradient after a step")
    return parameter.grad.cpu().double()


def _compare(device: torch.device, ways: dict[str, Callable[[BlockNetwork], Engine]]) -> None:
    for way, make_engine in ways.items():
        for kind, original in networks():
            network = copy.deepcopy(original).to(device)
            expected = reference(original)
            actual = measure(network, make_engine(network), device)
            for quantity, value, exact in zip(
                ("gradients", "logits"), actual, expected, strict=True
            ):
                _tell(way=way, network=kind, quantity=quantity, difference=difference(value, exact))


def _compare_predictions() -> None:
    """Compares the engine with which a server without a GPU predicts."""
    for kind, network in networks():
        network.eval()
        exported = ExportedNetwork(to_onnx(network.architecture, network.arrays()), ThreadTeam(1))
        images = normalize(batch(3)[0])
        workspace = Workspace(largest_batch=_IMAGES, threads=1)
        actual = exported.logits(images.contiguous().numpy(), workspace)
        with torch.no_grad():
            exact = copy.deepcopy(network).double()(images.double())
        _tell(
            way="served",
            network=kind,
            quantity="logits",
            difference=difference(torch.from_numpy(actual).double(), exact),
        )


def _compare_on_cpu() -> None:
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    _compare(
        cpu,
        {
            "torch": TorchEngine,
            "vector units": lambda network: SimdEngine(network, largest_batch=_IMAGES, threads=1),
        },
    )
    _compare_predictions()


def _compare_on_gpu(device: torch.device) -> None:
    # Training disables TensorFloat-32 too, which is a thousand times less exact.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    _compare(device, {"torch": TorchEngine})
    graphs = Graphs()
    _compare(device, {"graphs": lambda network: CudaEngine(network, graphs=graphs)})
    torch.cuda.synchronize(device)
    _tell(capture_failure=graphs.failure)


def _describe_gpus() -> None:
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call,unused-ignore]
        error = None
    except (RuntimeError, AssertionError) as reason:
        error = str(reason).splitlines()[0]
    _tell(
        cuda=torch.version.cuda,
        architectures=torch.cuda.get_arch_list(),
        error=error,
        gpus=[] if error else [_describe(index) for index in range(torch.cuda.device_count())],
    )


def _describe(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    return {
        "device": f"cuda:{index}",
        "name": properties.name,
        "capability": [properties.major, properties.minor],
        "total_bytes": total,
        "free_bytes": free,
    }


def _tell(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def main(device: str) -> None:
    """Prints the results for a device."""
    if device == "gpus":
        _describe_gpus()
    elif device == "cpu":
        _compare_on_cpu()
    else:
        _compare_on_gpu(torch.device(device))


if __name__ == "__main__":
    main(sys.argv[1])
