"""An epoch as files: weights, predictions and optimizer state, and JSON that describes them.

    epoch-00001.safetensors              weights and buffers
    epoch-00001.optimizer.safetensors    the optimizer's state, where it has any
    epoch-00001.predictions.safetensors  what each test image was taken for
    epoch-00001.json                     what they are, of what, and their hashes

The JSON is written last: a checkpoint without it does not exist. Nothing is
ever unpickled, and equal weights make equal files.
"""

import dataclasses
import importlib.metadata
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from leadline.models._description import CheckpointInfo, FileRecord, from_json, to_json
from leadline.models._files import make_folder, sha256_of, sync_folder, write_atomically
from leadline.models.evaluation import Evaluation
from leadline.models.network import BlockNetwork
from leadline.models.training import EpochOutcome, Trainer

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointInfo",
    "FileRecord",
    "list_epochs",
    "load_checkpoint",
    "load_info",
    "load_predictions",
    "remove_checkpoint",
    "restore",
    "save_checkpoint",
]

_DESCRIPTION = re.compile(r"epoch-(\d{5})\.json")


class CheckpointError(Exception):
    """A checkpoint is missing, damaged or of something else: the message names the file."""


@dataclass(frozen=True)
class Checkpoint:
    """An epoch's weights, and all that is known of them."""

    info: CheckpointInfo

    weights: dict[str, Tensor]
    """Parameters and buffers by their names in the network, on the CPU."""

    def network(self) -> BlockNetwork:
        """Returns the network with these weights, in evaluation mode, on the CPU.

        Raises:
            CheckpointError: the weights are of another architecture than is said.
        """
        # Built without memory of its own, so that nothing is drawn to be overwritten.
        with torch.device("meta"):
            network = BlockNetwork(self.info.architecture)
        try:
            network.load_state_dict(self.weights, strict=True, assign=True)
        except RuntimeError as error:
            name = self.info.files["weights"].name
            raise CheckpointError(f"{name} is of another architecture: {error}") from error
        return network.eval()


def save_checkpoint(directory: Path, trainer: Trainer, outcome: EpochOutcome) -> CheckpointInfo:
    """Writes what a trainer has come to after an epoch; durable when it returns.

    Args:
        directory: made where it does not exist. A checkpoint of the same epoch
            is replaced.
        trainer: as it is right after the epoch.
        outcome: what `train_epoch` returned.

    Raises:
        OSError: a file cannot be written.
    """
    make_folder(directory)
    stem = _stem(outcome.metrics.epoch)
    # A description must never stand beside files that are not its own.
    (directory / f"{stem}.json").unlink(missing_ok=True)
    sync_folder(directory)
    tensors = {
        "weights": (f"{stem}.safetensors", trainer.network.state_dict()),
        "predictions": (f"{stem}.predictions.safetensors", _predictions(outcome.test)),
        "optimizer": (f"{stem}.optimizer.safetensors", _optimizer_state(trainer)),
    }
    files = {
        kind: _write_tensors(directory / name, values)
        for kind, (name, values) in tensors.items()
        if values
    }
    info = CheckpointInfo(
        epoch=outcome.metrics.epoch,
        architecture=trainer.architecture,
        class_names=trainer.dataset.class_names,
        spec=trainer.spec,
        metrics=outcome.metrics,
        dataset_fingerprint=trainer.dataset.fingerprint,
        files=files,
        environment=_environment(trainer.device),
    )
    write_atomically(directory / f"{stem}.json", to_json(info))
    return info


def list_epochs(directory: Path) -> list[int]:
    """Returns the epochs that have a checkpoint, ascending; none where there is no directory."""
    names = (path.name for path in directory.glob("epoch-*.json"))
    return sorted(int(found[1]) for name in names if (found := _DESCRIPTION.fullmatch(name)))


def load_info(directory: Path, epoch: int) -> CheckpointInfo:
    """Reads what is known of a checkpoint, without its tensors.

    Raises:
        CheckpointError: there is none, or its description is damaged.
    """
    path = directory / f"{_stem(epoch)}.json"
    try:
        info = from_json(_read(path))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} does not describe a checkpoint: {error}") from error
    if info.epoch != epoch:
        raise CheckpointError(f"{path} describes epoch {info.epoch}")
    return info


def load_checkpoint(directory: Path, epoch: int, *, verify: bool = True) -> Checkpoint:
    """Loads an epoch's weights.

    Args:
        directory: where the checkpoints are.
        epoch: which one, 1 for the first.
        verify: whether to check the file's hash, and not its size alone.

    Raises:
        CheckpointError: a file is missing, truncated or damaged.
    """
    info = load_info(directory, epoch)
    return Checkpoint(info, _read_tensors(directory, info.files["weights"], verify=verify))


def load_predictions(
    directory: Path, epoch: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Loads what the network of an epoch took each test image for.

    Returns:
        the predicted class, int64 [N], and its softmax probability, float32 [N].

    Raises:
        CheckpointError: a file is missing, truncated or damaged.
    """
    record = load_info(directory, epoch).files["predictions"]
    tensors = _read_tensors(directory, record, verify=True)
    try:
        predicted, probability = tensors["predicted"], tensors["probability"]
    except KeyError as error:
        raise CheckpointError(f"{directory / record.name} holds no {error}") from error
    return predicted.numpy().astype(np.int64), probability.numpy()


def remove_checkpoint(directory: Path, epoch: int) -> None:
    """Removes an epoch's files; what is not there is no error.

    The description goes first: what a crash leaves is no checkpoint.

    Raises:
        OSError: a file cannot be removed.
    """
    stem = directory / _stem(epoch)
    for suffix in (".json", ".safetensors", ".predictions.safetensors", ".optimizer.safetensors"):
        stem.with_name(stem.name + suffix).unlink(missing_ok=True)


def restore(trainer: Trainer, directory: Path, epoch: int) -> CheckpointInfo:
    """Puts a trainer into the state that it was in after an epoch, bit for bit.

    Raises:
        CheckpointError: a file is missing or damaged, or the checkpoint is of
            another spec or dataset than the trainer. The trainer may then be of no use.
    """
    checkpoint = load_checkpoint(directory, epoch)
    info = checkpoint.info
    # More epochs of the same training are no other training.
    if dataclasses.replace(info.spec, epochs=trainer.spec.epochs) != trainer.spec:
        raise CheckpointError(f"{_stem(epoch)}.json in {directory} is of another training spec")
    if info.dataset_fingerprint != trainer.dataset.fingerprint:
        raise CheckpointError(f"{_stem(epoch)}.json in {directory} is of another dataset")
    trainer.network.load_state_dict(checkpoint.network().state_dict())
    record = info.files.get("optimizer")
    if record is not None:
        state = _read_tensors(directory, record, verify=True)
        _restore_optimizer(trainer, state, directory / record.name)
    return info


def _stem(epoch: int) -> str:
    return f"epoch-{epoch:05}"


def _predictions(test: Evaluation) -> dict[str, Tensor]:
    return {
        "predicted": torch.from_numpy(test.predicted.astype(np.int16)),
        "probability": torch.from_numpy(test.probability),
    }


def _optimizer_state(trainer: Trainer) -> dict[str, Tensor]:
    """Returns the optimizer's tensors as "PARAMETER/SLOT", such as "tail.bias/exp_avg"."""
    slots = trainer.optimizer.state
    return {
        f"{name}/{slot}": value
        for name, parameter in trainer.network.named_parameters()
        for slot, value in slots.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def _restore_optimizer(trainer: Trainer, tensors: dict[str, Tensor], path: Path) -> None:
    indices = {name: i for i, (name, _) in enumerate(trainer.network.named_parameters())}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, slot = key.rpartition("/")
        if name not in indices:
            raise CheckpointError(f"{path} has state of {name!r}, which the network has not")
        state.setdefault(indices[name], {})[slot] = value
    groups = trainer.optimizer.state_dict()["param_groups"]
    trainer.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _environment(device: torch.device) -> dict[str, Any]:
    try:
        leadline: str | None = importlib.metadata.version("leadline")
    except importlib.metadata.PackageNotFoundError:
        leadline = None  # run from its sources
    return {
        "leadline": leadline,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": str(device),
        "threads": torch.get_num_threads(),
    }


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> FileRecord:
    # No metadata: safetensors does not promise its order, and equal weights make equal files.
    data = safetensors.torch.save({key: value.cpu().contiguous() for key, value in tensors.items()})
    write_atomically(path, data)
    return FileRecord(path.name, sha256_of(data), len(data))


def _read_tensors(directory: Path, record: FileRecord, *, verify: bool) -> dict[str, Tensor]:
    path = directory / record.name
    data = _read(path)
    if len(data) != record.size:
        raise CheckpointError(f"{path} has {len(data):,} bytes instead of {record.size:,}")
    if verify and sha256_of(data) != record.sha256:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not {record.sha256}")
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} holds no tensors: {error}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
