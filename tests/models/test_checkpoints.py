import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from leadline.models._files import sha256_of
from leadline.models.checkpoint_files import (
    CheckpointError,
    list_epochs,
    load_info,
    load_onnx,
    load_predictions,
    remove_checkpoint,
)
from leadline.models.checkpoints import load_checkpoint, restore, save_checkpoint
from leadline.models.datasets import Dataset
from leadline.models.engine import SimdEngine
from leadline.models.evaluation import evaluate
from leadline.models.predictions import NoPredictionsError
from leadline.models.simd.instruction_set import instruction_set
from leadline.models.spec import (
    Augmentation,
    Initialization,
    Optimizer,
    Precision,
    Schedule,
    TrainingSpec,
)
from leadline.models.training import Trainer

SPEC = TrainingSpec(dataset="test", blocks=1, batch_norm=True, batch_size=64, momentum=0.9)

OF_TWO = replace(SPEC, block_convolutions=2)

OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": Optimizer.SGD, "momentum": 0.0},
    {"optimizer": Optimizer.SGD, "momentum": 0.9, "weight_decay": 0.01},
    {"optimizer": Optimizer.ADAM, "momentum": 0.0, "weight_decay": 0.01},
    {"optimizer": Optimizer.ADAMW, "momentum": 0.0, "weight_decay": 0.01},
]

BEYOND: list[dict[str, Any]] = [
    {"schedule": Schedule.COSINE, "epochs": 4, "nesterov": True, "diagnostics": True},
    {
        "schedule": Schedule.ONE_CYCLE,
        "epochs": 5,
        "augmentation": Augmentation.FLIP_CROP,
        "residual": True,
        "initialization": Initialization.KAIMING,
    },
    {"block_convolutions": 2, "residual": True},
    {"precision": Precision.BFLOAT16, "augmentation": Augmentation.FLIP},
]


@pytest.fixture
def trainer(dataset: Dataset, cpu: torch.device) -> Trainer:
    return Trainer(SPEC, dataset, device=cpu)


@pytest.fixture
def saved(trainer: Trainer, tmp_path: Path) -> Path:
    """A directory with the checkpoint of epoch 1."""
    save_checkpoint(tmp_path, trainer, trainer.train_epoch(1))
    return tmp_path


def train_and_save(trainer: Trainer, directory: Path, epochs: range) -> None:
    for epoch in epochs:
        save_checkpoint(directory, trainer, trainer.train_epoch(epoch))


def test_a_checkpoint_gives_the_network_back(
    trainer: Trainer, dataset: Dataset, cpu: torch.device, tmp_path: Path
) -> None:
    outcome = trainer.train_epoch(1)
    save_checkpoint(tmp_path, trainer, outcome)
    network = load_checkpoint(tmp_path, 1).network()
    assert not network.training
    engine = SimdEngine(network, largest_batch=1, threads=1)
    evaluation = evaluate(engine, dataset.test, device=cpu)
    assert evaluation.accuracy == outcome.metrics.test_accuracy
    assert evaluation.loss == outcome.metrics.test_loss
    kept = load_predictions(tmp_path, 1).probability
    assert np.array_equal(evaluation.predictions.probability, kept)


def test_the_network_can_be_trained_on(saved: Path) -> None:
    network = load_checkpoint(saved, 1).network()
    network(torch.zeros(1, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_predictions_come_back_as_they_were(trainer: Trainer, tmp_path: Path) -> None:
    outcome = trainer.train_epoch(1)
    save_checkpoint(tmp_path, trainer, outcome)
    test, train = load_predictions(tmp_path, 1), load_predictions(tmp_path, 1, "train")
    assert np.array_equal(test.predicted, outcome.test.predictions.predicted)
    assert np.array_equal(test.probability, outcome.test.predictions.probability)
    assert np.array_equal(train.predicted, outcome.train.predictions.predicted)
    assert np.allclose(train.probability, outcome.train.predictions.probability, atol=1e-5)
    assert len(train.predicted) == 200
    assert (test.predicted.dtype.name, test.probability.dtype.name) == ("int64", "float32")


def test_a_checkpoint_without_predictions_says_so(saved: Path) -> None:
    edit(saved, lambda it: it["files"].pop("predictions"))
    assert load_checkpoint(saved, 1).info.epoch == 1
    with pytest.raises(NoPredictionsError, match="epoch-00001 was made without predictions"):
        load_predictions(saved, 1)


def test_the_description_says_all_there_is_to_know(trainer: Trainer, tmp_path: Path) -> None:
    outcome = trainer.train_epoch(1)
    info = save_checkpoint(tmp_path, trainer, outcome)
    assert load_info(tmp_path, 1) == info
    description = json.loads((tmp_path / "epoch-00001.json").read_text())
    assert description["architecture"] == {
        "blocks": 1,
        "block_convolutions": 1,
        "batch_norm": True,
        "residual": False,
        "classes": 3,
    }
    assert description["class_names"] == ["dark", "grey", "bright"]
    assert description["spec"] == SPEC.to_dict()
    assert description["metrics"]["test_accuracy"] == outcome.metrics.test_accuracy
    assert description["dataset_fingerprint"] == "f" * 64
    assert description["preprocessing"] == {
        "image_size": 32,
        "channels": "RGB",
        "layout": "NCHW",
        "normalization": "value / 127.5 - 1",
    }
    assert description["environment"]["torch"] == torch.__version__
    assert description["environment"]["threads"] == torch.get_num_threads()
    assert description["environment"]["instruction_set"] == instruction_set().value
    for record in description["files"].values():
        data = (tmp_path / record["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (record["size"], record["sha256"])
    assert info.weights_sha256 == description["files"]["weights"]["sha256"]


def test_only_what_there_is_becomes_a_file(
    dataset: Dataset, cpu: torch.device, tmp_path: Path
) -> None:
    for momentum in (0.0, 0.9):
        trainer = Trainer(replace(SPEC, momentum=momentum), dataset, device=cpu)
        save_checkpoint(tmp_path / str(momentum), trainer, trainer.train_epoch(1))
    names = sorted(path.name for path in (tmp_path / "0.0").iterdir())
    assert names == [
        "epoch-00001.json",
        "epoch-00001.onnx",
        "epoch-00001.predictions.safetensors",
        "epoch-00001.safetensors",
    ]
    more = {path.name for path in (tmp_path / "0.9").iterdir()} - set(names)
    assert more == {"epoch-00001.optimizer.safetensors"}


@pytest.mark.parametrize("options", [*OPTIMIZERS, *BEYOND])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_interrupted_training_goes_on_bit_for_bit(
    dataset: Dataset,
    cpu: torch.device,
    tmp_path: Path,
    options: dict[str, Any],
    batch_norm: bool,
) -> None:
    spec = replace(SPEC, batch_norm=batch_norm, **options)
    straight, first, second = (Trainer(spec, dataset, device=cpu) for _ in range(3))
    train_and_save(straight, tmp_path / "straight", range(1, 5))
    train_and_save(first, tmp_path / "resumed", range(1, 3))
    restore(second, tmp_path / "resumed", 2)
    train_and_save(second, tmp_path / "resumed", range(3, 5))
    for path in (tmp_path / "straight").glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "resumed" / path.name).read_bytes(), path.name


def test_a_trainer_can_go_back(trainer: Trainer, tmp_path: Path) -> None:
    train_and_save(trainer, tmp_path / "a", range(1, 4))
    restore(trainer, tmp_path / "a", 1)
    train_and_save(trainer, tmp_path / "b", range(2, 4))
    kinds = ("safetensors", "optimizer.safetensors", "onnx")
    for name in (f"epoch-00003.{kind}" for kind in kinds):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_training_longer_is_the_same_training(
    dataset: Dataset, cpu: torch.device, saved: Path
) -> None:
    assert restore(Trainer(replace(SPEC, epochs=99), dataset, device=cpu), saved, 1).epoch == 1


def test_a_schedule_makes_longer_training_another(
    dataset: Dataset, cpu: torch.device, tmp_path: Path
) -> None:
    spec = replace(SPEC, schedule=Schedule.COSINE, epochs=2)
    trainer = Trainer(spec, dataset, device=cpu)
    train_and_save(trainer, tmp_path, range(1, 2))

    with pytest.raises(CheckpointError, match="another training spec"):
        restore(Trainer(replace(spec, epochs=3), dataset, device=cpu), tmp_path, 1)
    more = replace(spec, patience=3, diagnostics=True)
    assert restore(Trainer(more, dataset, device=cpu), tmp_path, 1).epoch == 1


def test_a_residual_network_comes_back_as_one(
    dataset: Dataset, cpu: torch.device, tmp_path: Path
) -> None:
    trainer = Trainer(replace(SPEC, residual=True), dataset, device=cpu)
    train_and_save(trainer, tmp_path, range(1, 2))
    images = torch.randn(4, 3, 32, 32)

    checkpoint = load_checkpoint(tmp_path, 1)

    assert checkpoint.info.architecture.residual
    with torch.inference_mode():
        assert torch.equal(checkpoint.network()(images), trainer.network.eval()(images))


@pytest.mark.parametrize("block_convolutions", [1, 2])
def test_blocks_come_back_with_their_convolutions(
    dataset: Dataset, cpu: torch.device, tmp_path: Path, block_convolutions: int
) -> None:
    spec = replace(SPEC, block_convolutions=block_convolutions)
    trainer = Trainer(spec, dataset, device=cpu)
    train_and_save(trainer, tmp_path, range(1, 2))
    images = torch.randn(4, 3, 32, 32)

    checkpoint = load_checkpoint(tmp_path, 1)

    assert checkpoint.info.spec == spec
    assert checkpoint.info.architecture.block_convolutions == block_convolutions
    with torch.inference_mode():
        assert torch.equal(checkpoint.network()(images), trainer.network.eval()(images))


def as_format_1(description: dict[str, Any]) -> None:
    """Converts a description to format 1, which had only blocks of two convolutions."""
    description["format"] = 1
    del description["architecture"]["block_convolutions"]
    del description["spec"]["block_convolutions"]


def test_a_checkpoint_of_format_1_has_blocks_of_two_convolutions(
    dataset: Dataset, cpu: torch.device, tmp_path: Path
) -> None:
    trainer = Trainer(OF_TWO, dataset, device=cpu)
    train_and_save(trainer, tmp_path, range(1, 2))
    written = load_info(tmp_path, 1)

    edit(tmp_path, as_format_1)

    assert load_info(tmp_path, 1) == written
    assert written.architecture.block_convolutions == written.spec.block_convolutions == 2
    assert load_checkpoint(tmp_path, 1).network().architecture == written.architecture


def test_training_goes_on_from_a_checkpoint_of_format_1_bit_for_bit(
    dataset: Dataset, cpu: torch.device, tmp_path: Path
) -> None:
    straight, first, second = (Trainer(OF_TWO, dataset, device=cpu) for _ in range(3))
    train_and_save(straight, tmp_path / "straight", range(1, 4))
    train_and_save(first, tmp_path / "resumed", range(1, 2))
    edit(tmp_path / "resumed", as_format_1)

    restore(second, tmp_path / "resumed", 1)
    train_and_save(second, tmp_path / "resumed", range(2, 4))

    for path in (tmp_path / "straight").glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "resumed" / path.name).read_bytes(), path.name


def test_blocks_of_one_convolution_do_not_go_on_from_a_checkpoint_of_format_1(
    trainer: Trainer, dataset: Dataset, cpu: torch.device, tmp_path: Path
) -> None:
    train_and_save(Trainer(OF_TWO, dataset, device=cpu), tmp_path, range(1, 2))
    edit(tmp_path, as_format_1)

    with pytest.raises(CheckpointError, match="another training spec"):
        restore(trainer, tmp_path, 1)


def test_a_checkpoint_from_before_there_were_options_can_be_gone_on_from(
    dataset: Dataset, cpu: torch.device, tmp_path: Path
) -> None:
    fields = ["dataset", "blocks", "batch_norm", "epochs", "batch_size", "learning_rate"]
    fields += ["optimizer", "momentum", "weight_decay", "seed"]

    def forget(description: dict[str, Any]) -> None:
        as_format_1(description)
        del description["architecture"]["residual"]
        description["spec"] = {field: description["spec"][field] for field in fields}

    trainer = Trainer(OF_TWO, dataset, device=cpu)
    train_and_save(trainer, tmp_path, range(1, 2))
    edit(tmp_path, forget)

    assert restore(trainer, tmp_path, 1).spec == OF_TWO
    assert not load_checkpoint(tmp_path, 1).network().architecture.residual


def test_another_training_is_not_restored(dataset: Dataset, cpu: torch.device, saved: Path) -> None:
    with pytest.raises(CheckpointError, match="another training spec"):
        restore(Trainer(replace(SPEC, seed=1), dataset, device=cpu), saved, 1)
    with pytest.raises(CheckpointError, match="another dataset"):
        restore(Trainer(SPEC, replace(dataset, fingerprint="0" * 64), device=cpu), saved, 1)


def test_epochs_are_listed_once_they_are_committed(trainer: Trainer, tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "er"
    assert list_epochs(directory) == []
    train_and_save(trainer, directory, range(1, 4))
    (directory / "epoch-00002.json").unlink()
    (directory / "epoch-7.json").touch()
    assert list_epochs(directory) == [1, 3]


def test_a_removed_checkpoint_leaves_nothing_and_others_alone(
    trainer: Trainer, tmp_path: Path
) -> None:
    train_and_save(trainer, tmp_path, range(1, 3))
    for _ in range(2):  # an already missing file is no error
        remove_checkpoint(tmp_path, 1)
    assert list_epochs(tmp_path) == [2]
    assert not list(tmp_path.glob("epoch-00001*"))
    assert load_checkpoint(tmp_path, 2).info.epoch == 2


def test_a_checkpoint_is_replaced(trainer: Trainer, saved: Path) -> None:
    before = load_info(saved, 1).weights_sha256
    outcome = trainer.train_epoch(2)
    again = replace(outcome, metrics=replace(outcome.metrics, epoch=1))
    save_checkpoint(saved, trainer, again)
    assert load_checkpoint(saved, 1).info.weights_sha256 != before


def test_a_failed_write_leaves_no_checkpoint(
    trainer: Trainer, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    outcome = trainer.train_epoch(2)
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(saved, trainer, outcome)
    assert list_epochs(saved) == [1]
    assert not [path for path in saved.iterdir() if path.name.startswith(".")]


def edit(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "epoch-00001.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.update(format=0),
        lambda it: it.update(format=3),
        lambda it: it.update(epoch=2),
        lambda it: it.pop("spec"),
        lambda it: it["spec"].update(colour="red"),
        lambda it: it["architecture"].update(width=9),
        lambda it: it["metrics"].pop("seconds"),
        lambda it: it.update(metrics=None),
        lambda it: it.update(files=[]),
        lambda it: it["files"].pop("weights"),
        lambda it: it["files"]["weights"].update(name="../../etc/passwd"),
        lambda it: it["files"]["weights"].update(name=None),
        lambda it: it["preprocessing"].update(normalization="value / 255"),
    ],
)
def test_a_description_that_is_not_ours_is_refused(
    saved: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    edit(saved, change)
    with pytest.raises(CheckpointError, match=r"epoch-00001\.json"):
        load_checkpoint(saved, 1)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}"])
def test_a_description_that_is_damaged_is_refused(saved: Path, content: bytes) -> None:
    (saved / "epoch-00001.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"epoch-00001\.json"):
        load_info(saved, 1)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("weights", "epoch-00001.safetensors"),
        ("predictions", "epoch-00001.predictions.safetensors"),
        ("optimizer", "epoch-00001.optimizer.safetensors"),
        ("onnx", "epoch-00001.onnx"),
    ],
)
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "empty", "longer"])
def test_a_damaged_file_is_named(
    trainer: Trainer, saved: Path, kind: str, name: str, damage: str
) -> None:
    path = saved / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    if damage != "missing":
        whole = bytes(data)
        path.write_bytes(
            {"flipped": whole, "longer": whole + b"x", "empty": b""}.get(damage, whole[:-1])
        )
    load: dict[str, Callable[[], object]] = {
        "weights": lambda: load_checkpoint(saved, 1),
        "predictions": lambda: load_predictions(saved, 1),
        "optimizer": lambda: restore(trainer, saved, 1),
        "onnx": lambda: load_onnx(saved, 1),
    }
    with pytest.raises(CheckpointError, match=name):
        load[kind]()


def test_a_missing_epoch_is_named(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"epoch-00002\.json cannot be read"):
        load_checkpoint(saved, 2)


def test_weights_of_another_architecture_are_refused(saved: Path) -> None:
    edit(saved, lambda it: it["architecture"].update(blocks=2))
    with pytest.raises(CheckpointError, match=r"epoch-00001\.safetensors is of another arch"):
        load_checkpoint(saved, 1).network()


def test_weights_that_are_no_tensors_are_refused(saved: Path) -> None:
    data = b"no tensors"
    (saved / "epoch-00001.safetensors").write_bytes(data)
    written = {"size": len(data), "sha256": sha256_of(data)}
    edit(saved, lambda it: it["files"]["weights"].update(written))
    with pytest.raises(CheckpointError, match="holds no tensors"):
        load_checkpoint(saved, 1)


def test_weights_are_plain_safetensors(trainer: Trainer, saved: Path) -> None:
    tensors = safetensors.torch.load_file(saved / "epoch-00001.safetensors")
    expected = trainer.network.state_dict()
    assert set(tensors) == set(expected)
    assert all(torch.equal(tensors[name], value) for name, value in expected.items())
