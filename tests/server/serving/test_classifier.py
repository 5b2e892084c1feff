"""The engine's scores equal those of the checkpoint in torch, and it respects its memory."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from leadline.models.batches import normalize
from leadline.models.checkpoints import load_checkpoint, save_checkpoint
from leadline.models.datasets import Dataset, Split
from leadline.models.graphs import Graphs
from leadline.models.spec import TrainingSpec
from leadline.models.training import Trainer
from leadline.server.serving.catalog import CheckpointRef
from leadline.server.serving.classifier import MAX_BATCH
from leadline.server.serving.cuda import CudaClassifier
from leadline.server.serving.loaded import LoadedNetworks, load_classifier

RefOf = Callable[[int], CheckpointRef]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of three epochs."""
    folder = tmp_path_factory.mktemp("checkpoints")
    spec = TrainingSpec(dataset="noise", blocks=2, batch_norm=True, batch_size=32)
    trainer = Trainer(spec, noise_dataset(), device=torch.device("cpu"))
    for epoch in (1, 2, 3):
        save_checkpoint(folder, trainer, trainer.train_epoch(epoch))
    return folder


def noise_dataset() -> Dataset:
    random = np.random.default_rng(5)

    def split(count: int) -> Split:
        images = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        return Split(images=images, labels=np.arange(count, dtype=np.int64) % 3)

    return Dataset(
        fingerprint="f" * 64, class_names=("a", "b", "c"), train=split(96), test=split(30)
    )


@pytest.fixture
def ref_of(folder: Path) -> RefOf:
    def ref(epoch: int) -> CheckpointRef:
        stands_in = SimpleNamespace(
            key=(f"models/j/epochs/{epoch}", "0" * 64),
            folder=folder,
            epoch=SimpleNamespace(epoch=epoch),
            reading=nullcontext,
        )
        return cast(CheckpointRef, stands_in)

    return ref


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
        ),
    ],
)
def test_pixels_of_both_kinds_score_as_in_torch(folder: Path, device: str) -> None:
    checkpoint = load_checkpoint(folder, 3)
    engine = load_classifier(folder, 3, device=device, threads=1)
    pixels = np.random.default_rng(1).integers(0, 256, (MAX_BATCH, 32, 32, 3), dtype=np.uint8)
    normalised = normalize(torch.from_numpy(pixels))
    # Read-only, like received tensors.
    floats = np.frombuffer(normalised.contiguous().numpy().tobytes(), np.float32)
    floats = floats.reshape(normalised.shape)

    mixed = engine.score([pixels[:5], floats[5:20], pixels[20:]])
    alone = engine.score([floats])

    with torch.inference_mode():
        expected = checkpoint.network()(normalised)
    close = 1e-5 if device == "cpu" else 1e-4
    for scores in (mixed, alone):
        np.testing.assert_allclose(scores.logits, expected.numpy(), atol=close)
        np.testing.assert_allclose(scores.probabilities, expected.softmax(1).numpy(), atol=close)
        assert (scores.logits.argmax(1) == expected.numpy().argmax(1)).all()


def test_predictions_go_on_where_no_graph_can_be_captured(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(function: Callable[..., torch.Tensor], inputs: Any) -> Callable[[], torch.Tensor]:
        function(*inputs)
        raise RuntimeError("no graphs here")

    graphs = Graphs(fail)
    engines = [CudaClassifier(folder, epoch, device="cpu", graphs=graphs) for epoch in (2, 3)]
    pixels = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)

    found = [engine.score([pixels]).logits for engine in (*engines, *engines)]

    normalised = normalize(torch.from_numpy(pixels)).contiguous()
    for epoch, logits in zip((2, 3, 2, 3), found, strict=True):
        with torch.inference_mode():
            expected = load_checkpoint(folder, epoch).network()(normalised)
        np.testing.assert_array_equal(logits, expected.numpy())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no graphs here" in caplog.text


def test_an_answer_does_not_change_with_the_next(folder: Path) -> None:
    engine = load_classifier(folder, 1, device="cpu", threads=1)
    random = np.random.default_rng(2)
    first, second = random.integers(0, 256, (2, 4, 32, 32, 3), dtype=np.uint8)

    scores = engine.score([first])
    kept = scores.logits.copy()
    engine.score([second])

    np.testing.assert_array_equal(scores.logits, kept)


def test_pixels_beyond_all_measure_disturb_no_image_beside_them(folder: Path) -> None:
    engine = load_classifier(folder, 1, device="cpu", threads=1)
    random = np.random.default_rng(4)
    usual = random.uniform(-1, 1, (9, 3, 32, 32)).astype(np.float32)
    huge = np.full((1, 3, 32, 32), 3e38, np.float32)

    expected = engine.score([usual])
    beside = engine.score([huge, usual])

    np.testing.assert_array_equal(beside.logits[1:], expected.logits)


def test_the_least_recently_used_networks_make_room(ref_of: RefOf) -> None:
    one = LoadedNetworks(device="cpu", threads=1, max_bytes=1 << 40)
    one.get(ref_of(1))
    loaded = LoadedNetworks(device="cpu", threads=1, max_bytes=2 * one.memory_bytes)

    engines = {epoch: loaded.get(ref_of(epoch)) for epoch in (1, 2)}
    loaded.get(ref_of(1))
    loaded.get(ref_of(3))

    assert loaded.memory_bytes <= 2 * one.memory_bytes
    assert loaded.get(ref_of(1)) is engines[1]
    assert loaded.get(ref_of(2)) is not engines[2]


def test_a_network_that_is_asked_for_stays_however_small_the_memory_is(ref_of: RefOf) -> None:
    loaded = LoadedNetworks(device="cpu", threads=1, max_bytes=0)

    assert loaded.get(ref_of(1)) is loaded.get(ref_of(1))
    assert loaded.get(ref_of(2)) is loaded.get(ref_of(2))


def test_a_dropped_network_is_loaded_again(ref_of: RefOf) -> None:
    loaded = LoadedNetworks(device="cpu", threads=1, max_bytes=1 << 40)
    before: Any = loaded.get(ref_of(1))

    loaded.drop(ref_of(1))
    loaded.drop(ref_of(2))  # which never existed

    assert loaded.memory_bytes == 0
    assert loaded.get(ref_of(1)) is not before
