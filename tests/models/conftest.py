"""Fixtures for the tests of the models: small datasets, and image files."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leadline.models.datasets import Dataset, Split
from leadline.models.simd.instruction_set import (
    InstructionSet,
    available_instruction_sets,
    instruction_set,
)


def _png_of(colour: tuple[int, int, int], size: tuple[int, int] = (32, 32)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Limits torch to one thread: with so few images, threads cost more than they save."""
    torch.set_num_threads(1)


@pytest.fixture(
    params=[
        pytest.param(
            one, id=one.value, marks=() if one is instruction_set() else pytest.mark.other_isa
        )
        for one in available_instruction_sets()
    ]
)
def isa(request: pytest.FixtureRequest) -> InstructionSet:
    """Each instruction set of the processor: a test with this fixture runs once for each."""
    chosen: InstructionSet = request.param
    return chosen


@pytest.fixture
def cpu() -> torch.device:
    return torch.device("cpu")


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """200 + 60 images of three classes, which differ roughly in brightness."""
    return Dataset(
        fingerprint="f" * 64,
        class_names=("dark", "grey", "bright"),
        train=_split(200, seed=1),
        test=_split(60, seed=2),
    )


def _split(count: int, seed: int) -> Split:
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 3
    noise = random.integers(0, 120, (count, 32, 32, 3))
    images = (labels[:, np.newaxis, np.newaxis, np.newaxis] * 60 + noise).astype(np.uint8)
    images.flags.writeable = labels.flags.writeable = False  # like memory maps
    return Split(images=images, labels=labels)


@pytest.fixture
def image_files() -> dict[str, bytes]:
    """The files of a dataset of two classes, by their paths; every image has another colour."""
    return {
        "train/cat/0.png": _png_of((10, 0, 0)),
        "train/cat/1.png": _png_of((20, 0, 0)),
        "train/dog/0.png": _png_of((30, 0, 0)),
        "test/cat/0.png": _png_of((40, 0, 0)),
        "test/dog/0.png": _png_of((50, 0, 0)),
        "test/dog/1.png": _png_of((60, 0, 0)),
    }


@pytest.fixture
def write_tar(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes files into a tar, in the order given."""

    def write(files: dict[str, bytes], name: str = "images.tar") -> Path:
        path = tmp_path / name
        mode = {".gz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2"}.get(path.suffix, "w")
        with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
            for member_name, data in files.items():
                member = tarfile.TarInfo(member_name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return path

    return write


@pytest.fixture
def write_folder(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes files into a folder."""

    def write(files: dict[str, bytes], name: str = "images") -> Path:
        for file_name, data in files.items():
            path = tmp_path / name / file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path / name

    return write


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def assert_is_fixture() -> Callable[[Dataset], None]:
    """Returns a check that a dataset is that of `image_files`, in the right order."""

    def check(dataset: Dataset) -> None:
        splits = (dataset.train, dataset.test)
        reds = [split.images[:, 0, 0, 0].tolist() for split in splits]
        assert dataset.class_names == ("cat", "dog")
        assert reds == [[10, 20, 30], [40, 50, 60]]
        assert [split.labels.tolist() for split in splits] == [[0, 0, 1], [0, 1, 1]]
        for split in splits:
            assert split.images.shape == (3, 32, 32, 3)
            assert split.images.dtype == np.dtype(np.uint8)
            assert split.labels.dtype == np.dtype(np.int64)
            assert isinstance(split.images, np.memmap)
            assert not split.images.flags.writeable

    return check
