"""Reads the parts of a checkpoint that need no torch.

    epoch-00001.checkpoint               weights, predictions, and their description
    epoch-00001.optimizer.safetensors    the optimizer's state, if it has any

A checkpoint is one file, which appears atomically: either the whole epoch exists, or
nothing of it. The file has two lines of text, and then the bytes of its parts:

    the SHA-256 of the next line, in hexadecimal
    the description in JSON, with the size and the SHA-256 of each part
    the weights and buffers, as safetensors
    the predictions, as `leadline.models.predictions` encodes them

The optimizer's state is written first, so training can continue from any checkpoint
whose state is still kept. No file is a pickle, and equal weights have equal hashes.

Older versions wrote each part into a separate file, with an ONNX graph beside them
and the description in `epoch-00001.json`. `compact_checkpoint` rewrites such an epoch.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from leadline.models._description import CheckpointInfo, FileRecord, from_json, to_json
from leadline.models._files import sha256_of, write_atomically
from leadline.models.datasets.contents import SplitName
from leadline.models.predictions import (
    NoPredictionsError,
    SplitPredictions,
    decode_predictions,
    encode_predictions,
)

_CHECKPOINT = ".checkpoint"
_OPTIMIZER = ".optimizer.safetensors"

_COMMITTED = re.compile(r"epoch-(\d{5})\.(checkpoint|json)")

# Of older versions. Removed in this order: without its description, a half-removed
# checkpoint does not exist.
_OLDER = (".json", ".safetensors", ".onnx", ".predictions.safetensors")


class CheckpointError(Exception):
    """A checkpoint is missing, damaged or of another training: the message names the file."""


@dataclass(frozen=True)
class CheckpointReader:
    """An epoch's description, and access to its parts."""

    info: CheckpointInfo
    _directory: Path
    _parts: Mapping[str, bytes]

    @property
    def is_compact(self) -> bool:
        """Whether it is one file; those of older versions are several."""
        return bool(self._parts)

    def read(self, kind: str) -> bytes:
        """Reads "weights", "predictions" or "optimizer".

        Raises:
            CheckpointError: the part is missing, truncated or damaged.
        """
        record = self.info.files[kind]
        path = self._directory / record.name
        data = self._parts[kind] if kind in self._parts else _read(path)
        if len(data) != record.size:
            raise CheckpointError(f"{path} has {len(data):,} bytes instead of {record.size:,}")
        if sha256_of(data) != record.sha256:
            raise CheckpointError(f"{path} is damaged: the SHA-256 of its {kind} is another")
        return data

    def read_predictions(self, split: SplitName) -> SplitPredictions:
        """Reads the predictions of a split.

        Raises:
            NoPredictionsError: the checkpoint was made without them.
            CheckpointError: they are missing, truncated or damaged.
        """
        if "predictions" not in self.info.files:
            raise NoPredictionsError(f"{stem_of(self.info.epoch)} was made without predictions")
        try:
            return decode_predictions(self.read("predictions"), split)
        except ValueError as error:
            path = self._directory / self.info.files["predictions"].name
            raise CheckpointError(f"{path} holds no predictions: {error}") from error


def list_epochs(directory: Path) -> list[int]:
    """Returns the epochs that have a checkpoint, ascending; none if the directory is missing."""
    names = (path.name for path in directory.glob("epoch-*"))
    return sorted({int(match[1]) for name in names if (match := _COMMITTED.fullmatch(name))})


def open_checkpoint(directory: Path, epoch: int) -> CheckpointReader:
    """Reads and checks the description of a checkpoint.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
    """
    path = directory / f"{stem_of(epoch)}{_CHECKPOINT}"
    older = path.with_suffix(".json")
    if not path.exists() and older.exists():
        return CheckpointReader(_parse(older, _read(older), epoch), directory, {})
    digest, description, content = (*_read(path).split(b"\n", 2), b"", b"")[:3]
    if digest.decode("latin-1") != sha256_of(description):
        raise CheckpointError(f"{path} is damaged: the SHA-256 of its description is another")
    info = _parse(path, description, epoch)
    parts, end = {}, 0
    for kind, record in info.files.items():
        if record.name == path.name:
            start, end = end, end + record.size
            parts[kind] = content[start:end]
    if len(content) != end:
        raise CheckpointError(f"{path} has parts of {len(content):,} bytes instead of {end:,}")
    return CheckpointReader(info, directory, parts)


def write_checkpoint(
    directory: Path, info: CheckpointInfo, parts: Mapping[str, bytes]
) -> CheckpointInfo:
    """Writes an epoch's file, and with it commits the epoch; durable when it returns.

    Args:
        directory: must exist.
        info: its description, whose `files` name none but the optimizer's.
        parts: the weights and the predictions.

    Returns:
        The description with all its files.

    Raises:
        FileExistsError: the epoch has such a file, which is never replaced.
        OSError: the file cannot be written.
    """
    name = f"{stem_of(info.epoch)}{_CHECKPOINT}"
    records = {kind: FileRecord(name, sha256_of(data), len(data)) for kind, data in parts.items()}
    info = replace(info, files=records | info.files)
    description = to_json(info)
    lines = (sha256_of(description).encode(), description, b"".join(parts.values()))
    write_atomically(directory / name, b"\n".join(lines), replaces=False)
    return info


def write_optimizer_state(directory: Path, epoch: int, data: bytes) -> FileRecord:
    """Writes the optimizer's state after an epoch. Call it before `write_checkpoint`.

    Raises:
        OSError: the file cannot be written.
    """
    path = directory / f"{stem_of(epoch)}{_OPTIMIZER}"
    write_atomically(path, data)
    return FileRecord(path.name, sha256_of(data), len(data))


def compact_checkpoint(directory: Path, epoch: int) -> None:
    """Rewrites an epoch of an older version as this version writes it.

    It can be interrupted and repeated at any point: the older files go once the new one
    is durable. An epoch that is compact stays as it is.

    Raises:
        CheckpointError: the epoch is damaged; its files stay as they are.
        OSError: a file cannot be written or removed.
    """
    reader = open_checkpoint(directory, epoch)
    if not reader.is_compact:
        parts = {"weights": reader.read("weights")}
        if "predictions" in reader.info.files:
            try:
                train = reader.read_predictions("train")
            except NoPredictionsError:
                train = None
            parts["predictions"] = encode_predictions(
                train,
                reader.read_predictions("test"),
                classes=reader.info.architecture.classes,
            )
        files = reader.info.files.items()
        optimizer = {kind: record for kind, record in files if kind == "optimizer"}
        write_checkpoint(directory, replace(reader.info, files=optimizer), parts)
    _remove(directory, epoch, _OLDER)


def load_info(directory: Path, epoch: int) -> CheckpointInfo:
    """Reads the description of a checkpoint.

    Raises:
        CheckpointError: the description is missing or damaged.
    """
    return open_checkpoint(directory, epoch).info


def load_predictions(directory: Path, epoch: int, split: SplitName = "test") -> SplitPredictions:
    """Loads the predictions of an epoch's network for the images of a split.

    Raises:
        NoPredictionsError: the checkpoint was made without predictions of this split.
        CheckpointError: a file is missing, truncated or damaged.
    """
    return open_checkpoint(directory, epoch).read_predictions(split)


def remove_checkpoint(directory: Path, epoch: int) -> None:
    """Removes an epoch's files; ignores missing ones.

    Raises:
        OSError: a file cannot be removed.
    """
    _remove(directory, epoch, (_CHECKPOINT, *_OLDER, _OPTIMIZER))


def remove_optimizer_state(directory: Path, epoch: int) -> None:
    """Removes the optimizer's state after an epoch; training can then not continue from it.

    Raises:
        OSError: the file cannot be removed.
    """
    _remove(directory, epoch, (_OPTIMIZER,))


def stem_of(epoch: int) -> str:
    """Returns the beginning of the names of an epoch's files."""
    return f"epoch-{epoch:05}"


def _remove(directory: Path, epoch: int, suffixes: tuple[str, ...]) -> None:
    for suffix in suffixes:
        (directory / f"{stem_of(epoch)}{suffix}").unlink(missing_ok=True)


def _parse(path: Path, description: bytes, epoch: int) -> CheckpointInfo:
    try:
        info = from_json(description)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} does not describe a checkpoint: {error}") from error
    if info.epoch != epoch:
        raise CheckpointError(f"{path} describes epoch {info.epoch}")
    return info


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
