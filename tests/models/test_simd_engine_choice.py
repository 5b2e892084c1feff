"""The choice of the engine on the CPU, and the networks that the vector engine refuses."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from leadline.models.checkpoint_files import load_info
from leadline.models.checkpoints import save_checkpoint
from leadline.models.datasets import Dataset
from leadline.models.engine import Engine, SimdEngine, TorchEngine, engine_for
from leadline.models.export import to_onnx
from leadline.models.network import Architecture, BlockNetwork
from leadline.models.simd.engine_choice import ENGINE_VARIABLE, UnknownEngineError, engine_choice
from leadline.models.simd.instruction_set import instruction_set
from leadline.models.simd.unsupported import UnsupportedNetworkError
from leadline.models.spec import TrainingSpec
from leadline.models.training import Trainer

CPU = torch.device("cpu")


def network_of(*, batch_norm: bool = False) -> BlockNetwork:
    return BlockNetwork(Architecture(blocks=1, batch_norm=batch_norm))


def with_channels(channels: int) -> BlockNetwork:
    """Returns a network with this number of channels everywhere, which torch can compute."""
    network = network_of()
    network.head = nn.Sequential()
    network.head.add_module("widen", nn.Conv2d(3, channels, 5))
    network.head.add_module("halve", nn.Conv2d(channels, channels, 5, stride=2))
    network.blocks[0].first_conv = nn.Conv2d(channels, channels, 3, padding=1)
    network.tail = nn.Conv2d(channels, 4, 3, stride=2)
    return network


def with_layer(path: str, layer: nn.Module, *, batch_norm: bool = False) -> BlockNetwork:
    network = network_of(batch_norm=batch_norm)
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, layer)
    return network


def engine_of(network: BlockNetwork, *, in_bfloat16: bool = False) -> Engine:
    return engine_for(network, device=CPU, in_bfloat16=in_bfloat16, largest_batch=8, threads=1)


MISFITS: dict[str, tuple[Callable[[], BlockNetwork], str]] = {
    "16 channels": (lambda: with_channels(16), r"widen has weights of the shape \(16, 3, 5, 5\)"),
    "4 channels": (lambda: with_channels(4), r"widen has weights of the shape \(4, 3, 5, 5\)"),
    "kernel": (
        lambda: with_layer("head.halve", nn.Conv2d(8, 8, 3, stride=2)),
        r"halve has weights of the shape \(8, 8, 3, 3\) .* written for \(8, 8, 5, 5\)",
    ),
    "stride": (
        lambda: with_layer("tail", nn.Conv2d(8, 4, 3)),
        r"tail has weights .* with stride \(1, 1\) .* with stride 2",
    ),
    "padding": (
        lambda: with_layer("blocks.0.first_conv", nn.Conv2d(8, 8, 3)),
        r"has weights .* and padding \(0, 0.*\), .* and padding 1",
    ),
}


@pytest.mark.parametrize(("make_network", "message"), MISFITS.values(), ids=MISFITS)
def test_a_network_that_does_not_fit_the_kernels_is_refused(
    make_network: Callable[[], BlockNetwork], message: str
) -> None:
    with pytest.raises(UnsupportedNetworkError, match=message):
        engine_of(make_network())


@pytest.mark.parametrize("misfit", ["16 channels", "4 channels", "kernel"])
def test_weights_that_do_not_fit_the_kernels_are_not_exported(misfit: str) -> None:
    make_network, message = MISFITS[misfit]
    network: BlockNetwork = make_network()
    with pytest.raises(UnsupportedNetworkError, match=message):
        to_onnx(network.architecture, network.arrays())


@pytest.mark.parametrize(
    ("path", "layer", "message"),
    [
        ("blocks.0.first_norm", nn.BatchNorm2d(8, eps=1e-3), "the kernels are written for 8"),
        ("blocks.0.first_norm", nn.BatchNorm2d(8, momentum=0.5), "a momentum of 0.1"),
        ("blocks.0.first_norm", nn.Identity(), "1 convolutions and 0 batch norms"),
        ("blocks.0.first_conv", nn.Conv2d(8, 8, 3, padding=1, bias=False), "with biases"),
        ("tail", nn.Conv2d(8, 4, 3, stride=2, dilation=2), "no dilation"),
    ],
)
def test_a_layer_that_training_cannot_compute_is_refused(
    path: str, layer: nn.Module, message: str
) -> None:
    with pytest.raises(UnsupportedNetworkError, match=message):
        engine_of(with_layer(path, layer, batch_norm=True))


def test_torch_trains_a_network_that_does_not_fit_the_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENGINE_VARIABLE, "torch")
    network = with_channels(16)

    loss = engine_of(network).gradients(
        torch.zeros(2, 32, 32, 3, dtype=torch.uint8), torch.tensor([0, 1])
    )

    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("value", "in_bfloat16", "expected"),
    [
        (None, False, SimdEngine),
        ("", False, SimdEngine),
        ("auto", False, SimdEngine),
        ("auto", True, TorchEngine),
        ("torch", False, TorchEngine),
        ("torch", True, TorchEngine),
    ],
)
def test_the_variable_selects_the_engine(
    value: str | None, in_bfloat16: bool, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENGINE_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(ENGINE_VARIABLE, value)

    assert type(engine_of(network_of(), in_bfloat16=in_bfloat16)) is expected


def test_an_unknown_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINE_VARIABLE, "Torch")

    with pytest.raises(UnknownEngineError) as refused:
        engine_choice()

    assert str(refused.value) == "LEADLINE_ENGINE is 'Torch': it must be auto or torch"


@pytest.mark.parametrize("engine", ["simd", "torch"])
def test_a_checkpoint_records_the_engine(
    engine: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENGINE_VARIABLE, "torch" if engine == "torch" else "auto")
    trainer = Trainer(TrainingSpec(blocks=1, epochs=1), dataset, device=CPU, threads=1)

    save_checkpoint(tmp_path, trainer, trainer.train_epoch(1))

    environment = load_info(tmp_path, 1).environment
    assert environment["engine"] == engine
    expected = instruction_set().value if engine == "simd" else None
    assert environment["instruction_set"] == expected
