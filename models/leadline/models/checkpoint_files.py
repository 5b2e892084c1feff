"""The files of checkpoints, as far as they can be read without torch.

    epoch-00001.safetensors              weights and buffers
    epoch-00001.onnx                     the network as inference engines take it
    epoch-00001.optimizer.safetensors    the optimizer's state, where it has any
    epoch-00001.predictions.safetensors  what each image was taken for
    epoch-00001.json                     what they are, of what, and their hashes

The JSON is written last: a checkpoint without it does not exist. Nothing is
ever unpickled, and equal weights make equal files.
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
"""Its first output, float32 [N, classes]."""

PROBABILITIES = "probabilities"
"""Its second, the softmax of the first."""

_DESCRIPTION = re.compile(r"epoch-(\d{5})\.json")

# The description goes first: what a crash leaves is no checkpoint.
_SUFFIXES = (".json", ".safetensors", ".onnx", ".predictions.safetensors", ".optimizer.safetensors")


class CheckpointError(Exception):
    """A checkpoint is missing, damaged or of something else: the message names the file."""


def list_epochs(directory: Path) -> list[int]:
    """Returns the epochs that have a checkpoint, ascending; none where there is no directory."""
    names = (path.name for path in directory.glob("epoch-*.json"))
    return sorted(int(match[1]) for name in names if (match := _DESCRIPTION.fullmatch(name)))


def load_info(directory: Path, epoch: int) -> CheckpointInfo:
    """Reads what is known of a checkpoint, without its tensors.

    Raises:
        CheckpointError: there is none, or its description is damaged.
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
    """Loads an epoch's network, a serialised ONNX model, as `leadline.models.export` makes it.

    Raises:
        CheckpointError: a file is missing, truncated or damaged.
    """
    return read_file(directory, load_info(directory, epoch).files["onnx"])


def load_predictions(directory: Path, epoch: int, split: SplitName = "test") -> SplitPredictions:
    """Loads what the network of an epoch took each image of a split for.

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
    """Removes an epoch's files; what is not there is no error.

    Raises:
        OSError: a file cannot be removed.
    """
    stem = directory / stem_of(epoch)
    for suffix in _SUFFIXES:
        stem.with_name(stem.name + suffix).unlink(missing_ok=True)


def read_file(directory: Path, record: FileRecord) -> bytes:
    """Reads a file of a checkpoint as `record` describes it.

    Raises:
        CheckpointError: it is missing, truncated or damaged.
    """
    path = directory / record.name
    data = _read(path)
    if len(data) != record.size:
        raise CheckpointError(f"{path} has {len(data):,} bytes instead of {record.size:,}")
    if sha256_of(data) != record.sha256:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not {record.sha256}")
    return data


def stem_of(epoch: int) -> str:
    """The beginning of the names of an epoch's files."""
    return f"epoch-{epoch:05}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
