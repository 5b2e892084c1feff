import numpy as np
import pytest

from leadline.models.datasets import Dataset, open_dataset

# The hash of all pixels, which must be the same on every machine.
FINGERPRINT = "3b385efe20e0003c2a86d17f3a3e985392d34ba9e479d680bd1b6707a52f2d06"

# Draws the whole dataset, in about five seconds.
pytestmark = pytest.mark.system

Progress = list[tuple[int, int]]


@pytest.fixture(scope="module")
def progress() -> Progress:
    return []


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory, progress: Progress) -> Dataset:
    cache_dir = tmp_path_factory.mktemp("synthetic")
    return open_dataset("synthetic", cache_dir, progress=lambda *step: progress.append(step))


@pytest.mark.usefixtures("synthetic")
def test_progress_is_told_about_every_percent(progress: Progress) -> None:
    assert progress == [(done, 12_000) for done in range(120, 12_001, 120)]


def test_the_synthetic_dataset_is_the_same_everywhere(synthetic: Dataset) -> None:
    assert synthetic.fingerprint == FINGERPRINT


def test_the_synthetic_dataset_is_balanced_and_varied(synthetic: Dataset) -> None:
    assert synthetic.class_names == (
        "arrow",
        "circle",
        "crescent",
        "cross",
        "heart",
        "hexagon",
        "ring",
        "square",
        "star",
        "triangle",
    )
    assert np.bincount(synthetic.train.labels).tolist() == [1_000] * 10
    assert np.bincount(synthetic.test.labels).tolist() == [200] * 10
    both = np.concatenate([synthetic.train.images, synthetic.test.images]).reshape(12_000, -1)
    assert len({image.tobytes() for image in both}) == 12_000


def test_brightness_alone_does_not_tell_the_synthetic_classes(synthetic: Dataset) -> None:
    means = synthetic.train.images.reshape(10_000, -1).mean(axis=1)
    by_class = [means[synthetic.train.labels == label] for label in range(10)]
    assert max(map(np.mean, by_class)) - min(map(np.mean, by_class)) < means.std()
