"""Reads the parts of a checkpoint that need no torch.

    epoch-00001.safetensors              weights and buffers
    epoch-00001.onnx                     the network for inference engines
    epoch-00001.optimizer.safetensors    the optimizer's state, if it has any
    epoch-00001.predictions.safetensors  the predicted class of each image
    epoch-00001.json                     the description of the files, and their hashes

The JSON is written last: a checkpoint without it does not exist. No file is
a pickle, and equal weights give equal files.
"""

import re
from pathlib import Path

from leadline.models._description import CheckpointInfo, FileRecord, from_json
from leadline.models._files import sha256_of
from leadline.models.datasets.contents import SplitName
from leadline.models.predictions import NoPredictionsError, SplitPredictions, decode_predictions

INPUT = "images"
"""The ONNX model's input, float32 [N, 3, 32, 32], normalised."""

LOGITS = "logits"
"""The ONNX model's first output, float32 [N, classes]."""

PROBABILITIES = "probabilities"
"""The ONNX model's second output, the softmax of the first."""

_DESCRIPTION = re.compile(r"epoch-(\d{5})\.json")

# Removed in this order: without its description, a half-removed checkpoint does not exist.
_SUFFIXES = (".json", ".safetensors", ".onnx", ".predictions.safetensors", ".optimizer.safetensors")


class CheckpointError(Exception):
    """A checkpoint is missing, damaged or of another training: the message names the file."""


def list_epochs(directory: Path) -> list[int]:
    """Returns the epochs that have a checkpoint, ascending; none if the directory is missing."""
    names = (path.name for path in directory.glob("epoch-*.json"))
    return sorted(int(match[1]) for name in names if (match := _DESCRIPTION.fullmatch(name)))


def load_info(directory: Path, epoch: int) -> CheckpointInfo:
    """Reads the description of a checkpoint.

    Raises:
        CheckpointError: the description is missing or damaged.
    """
    path = directory / f"{stem_of(epoch)}.json"
    try:
        info = from_json(_read(path))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} does not describe a checkpoint: {error}") from error
    if info.epoch != epoch:
        raise CheckpointError(f"{path} describes epoch {info.epoch}")
    return info


def load_onnx(directory: Path, epoch: int) -> bytes:
    """Loads an epoch's network as a serialised ONNX model: see `leadline.models.export`.

    Raises:
        CheckpointError: a file is missing, truncated or damaged.
    """
    return read_file(directory, load_info(directory, epoch).files["onnx"])


def load_predictions(directory: Path, epoch: int, split: SplitName = "test") -> SplitPredictions:
    """Loads the predictions of an epoch's network for the images of a split.

    Raises:
        NoPredictionsError: the checkpoint was made without predictions of this split.
        CheckpointError: a file is missing, truncated or damaged.
    """
    record = load_info(directory, epoch).files.get("predictions")
    if record is None:
        raise NoPredictionsError(f"{stem_of(epoch)} was made without predictions")
    data = read_file(directory, record)
    try:
        return decode_predictions(data, split)
    except ValueError as error:
        raise CheckpointError(f"{directory / record.name} holds no predictions: {error}") from error


def remove_checkpoint(directory: Path, epoch: int) -> None:
    """Removes an epoch's files; ignores missing ones.

    Raises:
        OSError: a file cannot be removed.
    """
    stem = directory / stem_of(epoch)
    for suffix in _SUFFIXES:
        stem.with_name(stem.name + suffix).unlink(missing_ok=True)


def read_file(directory: Path, record: FileRecord) -> bytes:
    """Reads a file of a checkpoint as `record` describes it.

    Raises:
        CheckpointError: the file is missing, truncated or damaged.
    """
    path = directory / record.name
    data = _read(path)
    if len(data) != record.size:
        raise CheckpointError(f"{path} has {len(data):,} bytes instead of {record.size:,}")
    if sha256_of(data) != record.sha256:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not {record.sha256}")
    return data


def stem_of(epoch: int) -> str:
    """Returns the beginning of the names of an epoch's files."""
    return f"epoch-{epoch:05}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
