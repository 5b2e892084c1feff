import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from leadline.models.datasets import Dataset, DatasetError, find_dataset, open_dataset

Check = Callable[[Dataset], None]
Files = dict[str, bytes]
Write = Callable[..., Path]

# Opens the dataset argv[1] in the cache argv[2] slowly, and prints the number of steps.
OPEN_SLOWLY = """
import sys, time
from pathlib import Path
from leadline.models.datasets import open_dataset

steps = []
def slowly(*step):
    steps.append(step)
    time.sleep(0.1)

open_dataset(sys.argv[1], Path(sys.argv[2]), progress=slowly)
print(len(steps))
"""

DIE_WHILE_DECODING = """
import os, sys
from pathlib import Path
from leadline.models.datasets import open_dataset

open_dataset(sys.argv[1], Path(sys.argv[2]), progress=lambda *_: os._exit(3))
"""


def truncate(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "dataset.json").unlink(),
        lambda folder: (folder / "dataset.json").write_text("{}"),
        lambda folder: (folder / "dataset.json").write_text("[]"),
        lambda folder: (folder / "train-images.npy").unlink(),
        lambda folder: truncate(folder / "train-images.npy", 100),
        lambda folder: (folder / "test-labels.npy").write_bytes(b"x" * 152),
        lambda folder: truncate(folder / "test-labels.npy", -1),
    ],
)
def test_a_damaged_cache_is_noticed_and_rebuilt(
    image_files: Files,
    write_tar: Write,
    cache_dir: Path,
    damage: Callable[[Path], object],
    assert_is_fixture: Check,
) -> None:
    path = write_tar(image_files)
    fingerprint = open_dataset(str(path), cache_dir).fingerprint
    damage(cache_dir / fingerprint)
    with pytest.raises(DatasetError):
        find_dataset(fingerprint, cache_dir)
    assert_is_fixture(open_dataset(str(path), cache_dir))
    assert_is_fixture(find_dataset(fingerprint, cache_dir))


@pytest.mark.parametrize(
    "damage",
    [Path.unlink, lambda path: truncate(path, -1), lambda path: path.write_bytes(b"x" * 152)],
)
def test_damaged_aspect_ratios_are_noticed(
    image_files: Files, write_tar: Write, cache_dir: Path, damage: Callable[[Path], object]
) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(file, "PNG")
    path = write_tar(image_files | {"train/cat/0.png": file.getvalue()})
    fingerprint = open_dataset(str(path), cache_dir).fingerprint
    ratios = cache_dir / fingerprint / "train-aspect-ratios.npy"
    damage(ratios)
    with pytest.raises(DatasetError):
        find_dataset(fingerprint, cache_dir)


def test_a_crash_while_decoding_leaves_nothing_to_be_taken_for_a_dataset(
    image_files: Files, write_tar: Write, cache_dir: Path, assert_is_fixture: Check
) -> None:
    path = write_tar(image_files)

    def crash(done: int, _: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_dataset(str(path), cache_dir, progress=crash)
    assert [entry.name for entry in cache_dir.iterdir()] == ["sources"]
    assert_is_fixture(open_dataset(str(path), cache_dir))


def test_what_a_killed_process_left_is_cleared_away(
    image_files: Files, write_tar: Write, cache_dir: Path, assert_is_fixture: Check
) -> None:
    path = write_tar(image_files)
    died = subprocess.run(
        [sys.executable, "-c", DIE_WHILE_DECODING, str(path), str(cache_dir)], check=False
    )
    assert died.returncode == 3
    assert len(list(cache_dir.glob(".building-*/train-images.npy"))) == 1
    assert_is_fixture(open_dataset(str(path), cache_dir))
    assert not list(cache_dir.glob(".building-*"))


def test_two_processes_decode_once_between_them(
    image_files: Files, write_tar: Write, cache_dir: Path
) -> None:
    path = write_tar(image_files)
    command = [sys.executable, "-c", OPEN_SLOWLY, str(path), str(cache_dir)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    steps = [int(process.communicate()[0]) for process in processes]
    assert sorted(steps) == [0, 6]
