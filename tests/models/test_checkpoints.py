import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
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
    compact_checkpoint,
    list_epochs,
    load_info,
    load_predictions,
    open_checkpoint,
    remove_checkpoint,
    remove_optimizer_state,
    write_checkpoint,
)
from leadline.models.checkpoints import load_checkpoint, restore, save_checkpoint
from leadline.models.datasets import Dataset
from leadline.models.engine import SimdEngine
from leadline.models.evaluation import evaluate
from leadline.models.export import load_onnx, to_onnx
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
from support.checkpoints import edit_description, make_older

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


def contents(directory: Path, epoch: int) -> dict[str, bytes]:
    """The parts of a checkpoint, without its description: that has times."""
    reader = open_checkpoint(directory, epoch)
    return {kind: reader.read(kind) for kind in reader.info.files}


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
    kept = load_predictions(tmp_path, 1)
    assert np.array_equal(evaluation.predictions.predicted, kept.predicted)
    assert np.abs(evaluation.predictions.probability - kept.probability).max() <= 1e-5


def test_the_network_can_be_trained_on(saved: Path) -> None:
    network = load_checkpoint(saved, 1).network()
    network(torch.zeros(1, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_predictions_come_back_and_their_probabilities_nearly(
    trainer: Trainer, tmp_path: Path
) -> None:
    outcome = trainer.train_epoch(1)
    save_checkpoint(tmp_path, trainer, outcome)
    test, train = load_predictions(tmp_path, 1), load_predictions(tmp_path, 1, "train")
    assert np.array_equal(test.predicted, outcome.test.predictions.predicted)
    assert np.allclose(test.probability, outcome.test.predictions.probability, atol=1e-5)
    assert np.array_equal(train.predicted, outcome.train.predictions.predicted)
    assert np.allclose(train.probability, outcome.train.predictions.probability, atol=0.002)
    assert len(train.predicted) == 200
    assert (test.predicted.dtype.name, test.probability.dtype.name) == ("int64", "float32")


def test_a_checkpoint_without_predictions_says_so(saved: Path) -> None:
    make_older(saved, 1, lambda it: it["files"].pop("predictions"))
    assert load_checkpoint(saved, 1).info.epoch == 1
    with pytest.raises(NoPredictionsError, match="epoch-00001 was made without predictions"):
        load_predictions(saved, 1)


def test_the_description_says_all_there_is_to_know(trainer: Trainer, tmp_path: Path) -> None:
    outcome = trainer.train_epoch(1)
    info = save_checkpoint(tmp_path, trainer, outcome)
    assert load_info(tmp_path, 1) == info
    digest, text, parts = (tmp_path / "epoch-00001.checkpoint").read_bytes().split(b"\n", 2)
    description = json.loads(text)
    assert digest.decode() == hashlib.sha256(text).hexdigest()
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
    files = description["files"]
    assert list(files) == ["weights", "predictions", "optimizer"]
    end = files["weights"]["size"]
    optimizer = (tmp_path / "epoch-00001.optimizer.safetensors").read_bytes()
    for record, data in zip(files.values(), (parts[:end], parts[end:], optimizer), strict=True):
        assert (len(data), hashlib.sha256(data).hexdigest()) == (record["size"], record["sha256"])
    assert info.weights_sha256 == files["weights"]["sha256"]


def test_only_what_there_is_becomes_a_file(
    dataset: Dataset, cpu: torch.device, tmp_path: Path
) -> None:
    for momentum in (0.0, 0.9):
        trainer = Trainer(replace(SPEC, momentum=momentum), dataset, device=cpu)
        save_checkpoint(tmp_path / str(momentum), trainer, trainer.train_epoch(1))
    names = [
        sorted(path.name for path in folder.iterdir()) for folder in sorted(tmp_path.iterdir())
    ]
    checkpoint, state = "epoch-00001.checkpoint", "epoch-00001.optimizer.safetensors"
    assert names == [[checkpoint], [checkpoint, state]]


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
    for epoch in range(1, 5):
        assert contents(tmp_path / "straight", epoch) == contents(tmp_path / "resumed", epoch)


def test_a_trainer_can_go_back(trainer: Trainer, tmp_path: Path) -> None:
    train_and_save(trainer, tmp_path / "a", range(1, 4))
    restore(trainer, tmp_path / "a", 1)
    train_and_save(trainer, tmp_path / "b", range(2, 4))
    assert contents(tmp_path / "a", 3) == contents(tmp_path / "b", 3)


def test_a_trainer_goes_on_from_the_epoch_before_a_damaged_one(
    trainer: Trainer, dataset: Dataset, cpu: torch.device, tmp_path: Path
) -> None:
    train_and_save(trainer, tmp_path / "a", range(1, 4))
    remove_optimizer_state(tmp_path / "a", 2)
    resumed = Trainer(SPEC, dataset, device=cpu)

    with pytest.raises(CheckpointError, match="epoch-00002"):
        restore(resumed, tmp_path / "a", 2)
    restore(resumed, tmp_path / "a", 1)
    train_and_save(resumed, tmp_path / "b", range(2, 4))

    assert contents(tmp_path / "a", 3) == contents(tmp_path / "b", 3)


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

    make_older(tmp_path, 1, as_format_1)

    assert replace(load_info(tmp_path, 1), files=written.files) == written
    assert written.architecture.block_convolutions == written.spec.block_convolutions == 2
    assert load_checkpoint(tmp_path, 1).network().architecture == written.architecture


def test_training_goes_on_from_a_checkpoint_of_format_1_bit_for_bit(
    dataset: Dataset, cpu: torch.device, tmp_path: Path
) -> None:
    straight, first, second = (Trainer(OF_TWO, dataset, device=cpu) for _ in range(3))
    train_and_save(straight, tmp_path / "straight", range(1, 4))
    train_and_save(first, tmp_path / "resumed", range(1, 2))
    make_older(tmp_path / "resumed", 1, as_format_1)

    restore(second, tmp_path / "resumed", 1)
    train_and_save(second, tmp_path / "resumed", range(2, 4))

    for epoch in (2, 3):
        assert contents(tmp_path / "straight", epoch) == contents(tmp_path / "resumed", epoch)


def test_blocks_of_one_convolution_do_not_go_on_from_a_checkpoint_of_format_1(
    trainer: Trainer, dataset: Dataset, cpu: torch.device, tmp_path: Path
) -> None:
    train_and_save(Trainer(OF_TWO, dataset, device=cpu), tmp_path, range(1, 2))
    make_older(tmp_path, 1, as_format_1)

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
    make_older(tmp_path, 1, forget)

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
    (directory / "epoch-00002.checkpoint").unlink()
    (directory / "epoch-7.checkpoint").touch()
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


@pytest.mark.parametrize("is_older", [False, True])
def test_a_checkpoint_is_never_replaced(trainer: Trainer, saved: Path, *, is_older: bool) -> None:
    if is_older:
        make_older(saved, 1)
    before = {path: path.read_bytes() for path in saved.iterdir()}
    outcome = trainer.train_epoch(2)
    again = replace(outcome, metrics=replace(outcome.metrics, epoch=1))
    with pytest.raises(FileExistsError, match="has a checkpoint of epoch 1 already"):
        save_checkpoint(saved, trainer, again)
    assert {path: path.read_bytes() for path in saved.iterdir()} == before


def test_the_first_of_two_writers_of_an_epoch_wins(saved: Path) -> None:
    before, info = contents(saved, 1), load_info(saved, 1)
    with pytest.raises(FileExistsError):
        write_checkpoint(saved, replace(info, files={}), {"weights": b"of the second"})
    assert contents(saved, 1) == before
    assert not list(saved.glob(".*"))


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
    edit_description(directory / "epoch-00001.checkpoint", change)


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.update(format=0),
        lambda it: it.update(format=4),
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
    with pytest.raises(CheckpointError, match=r"epoch-00001\.checkpoint"):
        load_checkpoint(saved, 1)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}"])
@pytest.mark.parametrize("form", ["older", "signed", "bare"])
def test_a_description_that_is_damaged_is_refused(saved: Path, content: bytes, form: str) -> None:
    path = saved / "epoch-00001.checkpoint"
    if form == "older":
        path.unlink()
        path = saved / "epoch-00001.json"
    elif form == "signed":
        content = b"\n".join((sha256_of(content).encode(), content, b""))
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=path.name):
        load_info(saved, 1)


@pytest.mark.parametrize("part", ["weights", "predictions", "optimizer"])
@pytest.mark.parametrize("is_older", [False, True])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "empty", "longer"])
def test_a_damaged_file_is_named(
    trainer: Trainer, saved: Path, part: str, is_older: bool, damage: str
) -> None:
    if is_older:
        make_older(saved, 1)
    files = load_info(saved, 1).files
    path = saved / files[part].name
    data = bytearray(path.read_bytes())
    in_weights = part == "weights" and not is_older
    data[-files["predictions"].size - 1 if in_weights else -1] ^= 1
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
    }
    with pytest.raises(CheckpointError, match=path.name):
        load[part]()
    if part == "weights":
        with pytest.raises(CheckpointError, match=path.name):
            load_onnx(saved, 1)


@pytest.mark.parametrize("place", range(0, 3_000, 71))
def test_no_flipped_bit_of_the_description_goes_unseen(saved: Path, place: int) -> None:
    path = saved / "epoch-00001.checkpoint"
    data = bytearray(path.read_bytes())
    start = len(data) - sum(
        load_info(saved, 1).files[kind].size for kind in ("weights", "predictions")
    )
    data[place % start] ^= 1 << place % 8
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=path.name):
        load_info(saved, 1)


def test_a_missing_epoch_is_named(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"epoch-00002\.checkpoint cannot be read"):
        load_checkpoint(saved, 2)


def test_weights_of_another_architecture_are_refused(saved: Path) -> None:
    edit(saved, lambda it: it["architecture"].update(blocks=2))
    with pytest.raises(CheckpointError, match=r"epoch-00001\.checkpoint is of another arch"):
        load_checkpoint(saved, 1).network()
    with pytest.raises(
        CheckpointError, match=r"epoch-00001 .* of another architecture: .*blocks\.1"
    ):
        load_onnx(saved, 1)


def test_weights_that_are_no_tensors_are_refused(saved: Path) -> None:
    data = b"no tensors"
    written = {"size": len(data), "sha256": sha256_of(data)}

    def change(description: dict[str, Any]) -> None:
        description["files"]["weights"].update(written)
        del description["files"]["predictions"]

    edit_description(saved / "epoch-00001.checkpoint", change, parts=data)
    with pytest.raises(CheckpointError, match="are no tensors"):
        load_checkpoint(saved, 1)
    with pytest.raises(CheckpointError, match="epoch-00001"):
        load_onnx(saved, 1)


def test_weights_are_plain_safetensors(trainer: Trainer, saved: Path) -> None:
    tensors = safetensors.torch.load(open_checkpoint(saved, 1).read("weights"))
    expected = trainer.network.state_dict()
    assert set(tensors) == set(expected)
    assert all(torch.equal(tensors[name], value) for name, value in expected.items())


def test_the_onnx_model_of_an_epoch_is_that_of_its_network(trainer: Trainer, saved: Path) -> None:
    expected = to_onnx(trainer.architecture, trainer.network.arrays())
    assert load_onnx(saved, 1) == load_onnx(saved, 1) == expected


# Kills


class Kill(BaseException):
    """Stands for the end of the process."""


KillContext = contextlib.AbstractContextManager[None]


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], KillContext]:
    """Returns a context in which a folder can change this many times at most."""

    @contextlib.contextmanager
    def arm(steps: int) -> Iterator[None]:
        left = iter(range(steps))

        def limited(change: Callable[..., Any]) -> Callable[..., Any]:
            def step(*arguments: Any, **options: Any) -> Any:
                if next(left, None) is None:
                    raise Kill
                return change(*arguments, **options)

            return step

        monkeypatch.setattr("os.fsync", limited(os.fsync))
        for name in ("replace", "hardlink_to", "unlink"):
            monkeypatch.setattr(Path, name, limited(getattr(Path, name)))
        with contextlib.suppress(Kill):
            yield
        monkeypatch.undo()

    return arm


# The optimizer's state: to sync it, to rename it, to sync the folder. The checkpoint: to sync it,
# to link it, to remove its temporary name, to sync the folder.
STEPS_OF_AN_EPOCH = 7
COMMITTING_STEP = 5


@pytest.mark.parametrize("steps", range(STEPS_OF_AN_EPOCH + 1))
def test_a_kill_at_any_step_leaves_the_whole_epoch_or_none(
    dataset: Dataset, tmp_path: Path, kill_at: Callable[[int], KillContext], steps: int
) -> None:
    straight, killed, resumed = (
        Trainer(SPEC, dataset, device=torch.device("cpu")) for _ in range(3)
    )
    train_and_save(straight, tmp_path / "straight", range(1, 4))
    folder = tmp_path / "killed"
    train_and_save(killed, folder, range(1, 3))
    outcome = killed.train_epoch(3)

    with kill_at(steps):
        save_checkpoint(folder, killed, outcome)

    assert list_epochs(folder) == ([1, 2, 3] if steps >= COMMITTING_STEP else [1, 2])
    for epoch in (1, 2):  # both stay usable, to train on from either
        restore(resumed, folder, epoch)
    train_and_save(resumed, tmp_path / "next attempt", range(3, 4))
    for epoch in list_epochs(folder):
        assert contents(folder, epoch) == contents(tmp_path / "straight", epoch)
    assert contents(tmp_path / "next attempt", 3) == contents(tmp_path / "straight", 3)


# Older checkpoints


def predictions_of(directory: Path, epoch: int) -> list[np.ndarray]:
    both = (load_predictions(directory, epoch, split) for split in ("test", "train"))
    return [
        array
        for split in both
        for array in (split.predicted, split.probability, split.true_probability)
        if array is not None
    ]


def test_an_older_checkpoint_is_read_as_it_is_and_trained_on(
    dataset: Dataset, cpu: torch.device, saved: Path
) -> None:
    onnx, before = load_onnx(saved, 1), predictions_of(saved, 1)
    make_older(saved, 1)

    assert list_epochs(saved) == [1]
    assert load_onnx(saved, 1) == onnx == (saved / "epoch-00001.onnx").read_bytes()
    for old, new in zip(predictions_of(saved, 1), before, strict=True):
        np.testing.assert_allclose(old, new, atol=1e-5)
    assert restore(Trainer(SPEC, dataset, device=cpu), saved, 1).epoch == 1


# To sync the checkpoint, to link it, to remove its temporary name, to sync its folder, and to
# remove four files.
STEPS_OF_COMPACTION = 8


@pytest.mark.parametrize("steps", range(STEPS_OF_COMPACTION + 1))
def test_a_kill_at_any_step_of_a_compaction_loses_nothing(
    saved: Path, trainer: Trainer, kill_at: Callable[[int], KillContext], steps: int
) -> None:
    make_older(saved, 1)
    info, onnx, before = load_info(saved, 1), load_onnx(saved, 1), predictions_of(saved, 1)

    with kill_at(steps):
        compact_checkpoint(saved, 1)

    for _ in range(2):  # as it was left; then as a second compaction leaves it
        assert list_epochs(saved) == [1]
        assert load_info(saved, 1).weights_sha256 == info.weights_sha256
        assert load_onnx(saved, 1) == onnx
        restore(trainer, saved, 1)
        for old, new in zip(before, predictions_of(saved, 1), strict=True):
            np.testing.assert_allclose(new, old, atol=0.002)
        compact_checkpoint(saved, 1)
    assert {path.name for path in saved.iterdir() if not path.name.startswith(".")} == {
        "epoch-00001.checkpoint",
        "epoch-00001.optimizer.safetensors",
    }


def test_predictions_of_the_test_set_alone_are_compacted_too(saved: Path) -> None:
    make_older(saved, 1, has_all_predictions=False)
    before = load_predictions(saved, 1)

    compact_checkpoint(saved, 1)

    after = load_predictions(saved, 1)
    assert np.array_equal(after.predicted, before.predicted)
    assert after.true_probability is None
    with pytest.raises(NoPredictionsError, match="train images were not stored"):
        load_predictions(saved, 1, "train")


@pytest.mark.parametrize("suffix", ["safetensors", "predictions.safetensors", "json"])
def test_a_damaged_older_checkpoint_is_not_compacted(saved: Path, suffix: str) -> None:
    make_older(saved, 1)
    (saved / f"epoch-00001.{suffix}").write_bytes(b"damaged")
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    with pytest.raises(CheckpointError, match=suffix):
        compact_checkpoint(saved, 1)

    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_training_does_not_go_on_without_the_optimizers_state(
    trainer: Trainer, saved: Path
) -> None:
    remove_optimizer_state(saved, 1)

    with pytest.raises(
        CheckpointError, match=r"epoch-00001\.optimizer\.safetensors cannot be read"
    ):
        restore(trainer, saved, 1)
    assert load_checkpoint(saved, 1).info.epoch == 1
