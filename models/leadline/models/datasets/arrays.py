"""The arrays of a decoded dataset as .npy files, without pickles."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from leadline.models.datasets.contents import SPLITS, Split, SplitName
from leadline.models.images import IMAGE_SIZE

IMAGE_SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 3)

_IMAGE_BYTES = IMAGE_SIZE * IMAGE_SIZE * 3
_HASHED_AT_ONCE = 4096  # images, which are 12 MiB


def array_path(
    folder: Path, split: SplitName, kind: Literal["images", "labels", "aspect-ratios"]
) -> Path:
    """Returns the path of an array in a dataset's folder."""
    return folder / f"{split}-{kind}.npy"


class ImageFile:
    """A .npy file of images, uint8 [count, 32, 32, 3], written in any order.

    Uses system calls rather than a memory map: a full disk then raises an
    OSError, where a memory map would kill the process.
    """

    def __init__(self, folder: Path, split: SplitName, count: int) -> None:
        self._file = array_path(folder, split, "images").open("wb", buffering=0)
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *IMAGE_SHAPE)}
        try:
            np.lib.format.write_array_header_1_0(self._file, header)
        except OSError:
            self._file.close()
            raise
        self._start = self._file.tell()

    def write(self, index: int, pixels: npt.NDArray[np.uint8]) -> None:
        """Writes one image, uint8 [32, 32, 3], at an index."""
        data = pixels.tobytes()
        if pixels.dtype != np.uint8 or len(data) != _IMAGE_BYTES:
            raise ValueError(f"not an image of a dataset: {pixels.dtype} {list(pixels.shape)}")
        os.pwrite(self._file.fileno(), data, self._start + index * _IMAGE_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with self._file:
            os.fsync(self._file.fileno())


def write_labels(folder: Path, split: SplitName, labels: npt.NDArray[np.int64]) -> None:
    """Writes the labels of a split, int64 [N]."""
    _write(array_path(folder, split, "labels"), labels.astype(np.int64))


def write_aspect_ratios(folder: Path, split: SplitName, ratios: npt.NDArray[np.float32]) -> None:
    """Writes the aspect ratios of a split, float32 [N], unless all images are square."""
    if (ratios != 1).any():
        _write(array_path(folder, split, "aspect-ratios"), ratios)


def _write(path: Path, array: npt.NDArray[Any]) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def load_split(folder: Path, split: SplitName, classes: int) -> Split:
    """Maps a split into memory.

    Raises:
        OSError, ValueError, EOFError: a file is missing, damaged, or of another shape or type.
    """
    images = _map(array_path(folder, split, "images"))
    labels = _map(array_path(folder, split, "labels"))
    if images.dtype != np.uint8 or images.shape != (len(labels), *IMAGE_SHAPE):
        raise ValueError(f"{split} images are {images.dtype} {list(images.shape)}")
    if labels.dtype != np.int64 or labels.ndim != 1 or not len(labels):
        raise ValueError(f"{split} labels are {labels.dtype} {list(labels.shape)}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"{split} labels are of more classes than {classes}")
    path = array_path(folder, split, "aspect-ratios")
    ratios = _map(path) if path.exists() else None
    if ratios is not None and (ratios.dtype != np.float32 or ratios.shape != labels.shape):
        raise ValueError(f"{split} aspect ratios are {ratios.dtype} {list(ratios.shape)}")
    return Split(images=images, labels=labels, aspect_ratios=ratios)


def fingerprint_of(folder: Path, class_names: tuple[str, ...]) -> str:
    """Returns the SHA-256 of class names, images and labels, in hexadecimal."""
    digest = hashlib.sha256(json.dumps(class_names).encode())
    for name in SPLITS:
        split = load_split(folder, name, len(class_names))
        digest.update(f"\n{name} {len(split)}\n".encode())
        for start in range(0, len(split), _HASHED_AT_ONCE):
            digest.update(split.images[start : start + _HASHED_AT_ONCE].tobytes())
        digest.update(split.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _map(path: Path) -> npt.NDArray[Any]:
    mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped
