"""Saves and loads an epoch: to continue training, to predict, and to report results.

`leadline.models.checkpoint_files` lists the files, and reads them without torch.
"""

import dataclasses
import importlib.metadata
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from leadline.models._description import CheckpointInfo, FileRecord, to_json
from leadline.models._files import make_folder, sha256_of, sync_folder, write_atomically
from leadline.models.checkpoint_files import CheckpointError, load_info, read_file, stem_of
from leadline.models.export import to_onnx
from leadline.models.network import BlockNetwork
from leadline.models.predictions import encode_predictions
from leadline.models.simd.engine_choice import recorded_instruction_set
from leadline.models.spec import Schedule, TrainingSpec
from leadline.models.training import EpochOutcome, Trainer

__all__ = ["Checkpoint", "CheckpointError", "load_checkpoint", "restore", "save_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """An epoch's weights and their description."""

    info: CheckpointInfo

    weights: dict[str, Tensor]
    """Parameters and buffers by their names in the network, on the CPU."""

    def network(self) -> BlockNetwork:
        """Returns the network with these weights, in evaluation mode, on the CPU.

        Raises:
            CheckpointError: the weights do not fit the architecture of the description.
        """
        # On the meta device, so that no weights are drawn only to be overwritten.
        with torch.device("meta"):
            network = BlockNetwork(self.info.architecture)
        try:
            network.load_state_dict(self.weights, strict=True, assign=True)
        except RuntimeError as error:
            name = self.info.files["weights"].name
            raise CheckpointError(f"{name} is of another architecture: {error}") from error
        return network.eval()


def save_checkpoint(directory: Path, trainer: Trainer, outcome: EpochOutcome) -> CheckpointInfo:
    """Writes a trainer's checkpoint after an epoch; durable when it returns.

    Args:
        directory: created if it does not exist. A checkpoint of the same epoch
            is replaced.
        trainer: in its state right after the epoch.
        outcome: the result of `train_epoch`.

    Raises:
        OSError: a file cannot be written.
    """
    make_folder(directory)
    stem = stem_of(outcome.metrics.epoch)
    # A description must never lie beside files of another checkpoint.
    (directory / f"{stem}.json").unlink(missing_ok=True)
    sync_folder(directory)
    tensors = {
        "weights": (f"{stem}.safetensors", trainer.network.state_dict()),
        "optimizer": (f"{stem}.optimizer.safetensors", _optimizer_state(trainer)),
    }
    files = {
        kind: _write_tensors(directory / name, values)
        for kind, (name, values) in tensors.items()
        if values
    }
    files["predictions"] = _write(
        directory / f"{stem}.predictions.safetensors",
        encode_predictions(
            outcome.train.predictions,
            outcome.test.predictions,
            classes=trainer.architecture.classes,
        ),
    )
    files["onnx"] = _write(directory / f"{stem}.onnx", to_onnx(trainer.network))
    info = CheckpointInfo(
        epoch=outcome.metrics.epoch,
        architecture=trainer.architecture,
        class_names=trainer.dataset.class_names,
        spec=trainer.spec,
        metrics=outcome.metrics,
        dataset_fingerprint=trainer.dataset.fingerprint,
        files=files,
        environment=_environment(trainer),
    )
    write_atomically(directory / f"{stem}.json", to_json(info))
    return info


def load_checkpoint(directory: Path, epoch: int) -> Checkpoint:
    """Loads the weights of an epoch, 1 for the first.

    Raises:
        CheckpointError: a file is missing, truncated or damaged.
    """
    info = load_info(directory, epoch)
    return Checkpoint(info, _read_tensors(directory, info.files["weights"]))


def restore(trainer: Trainer, directory: Path, epoch: int) -> CheckpointInfo:
    """Restores a trainer's state after an epoch, bit for bit.

    Raises:
        CheckpointError: a file is missing or damaged, or the checkpoint is of
            another spec or dataset than the trainer. The trainer may then be unusable.
    """
    checkpoint = load_checkpoint(directory, epoch)
    info = checkpoint.info
    if not _is_same_training(info.spec, trainer.spec):
        raise CheckpointError(f"{stem_of(epoch)}.json in {directory} is of another training spec")
    if info.dataset_fingerprint != trainer.dataset.fingerprint:
        raise CheckpointError(f"{stem_of(epoch)}.json in {directory} is of another dataset")
    trainer.network.load_state_dict(checkpoint.network().state_dict())
    record = info.files.get("optimizer")
    if record is not None:
        state = _read_tensors(directory, record)
        _restore_optimizer(trainer, state, directory / record.name)
    return info


def _is_same_training(a: TrainingSpec, b: TrainingSpec) -> bool:
    """Whether both specs give the same weights in the epochs that both train."""
    if a.schedule is Schedule.CONSTANT:
        # With other schedules, the number of epochs affects every step.
        a = dataclasses.replace(a, epochs=b.epochs)
    return dataclasses.replace(a, patience=b.patience, diagnostics=b.diagnostics) == b


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
            raise CheckpointError(f"{path} has state of {name!r}, which the network lacks")
        state.setdefault(indices[name], {})[slot] = value
    groups = trainer.optimizer.state_dict()["param_groups"]
    trainer.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _environment(trainer: Trainer) -> dict[str, Any]:
    try:
        leadline: str | None = importlib.metadata.version("leadline")
    except importlib.metadata.PackageNotFoundError:
        leadline = None  # runs from its sources
    return {
        "leadline": leadline,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": str(trainer.device),
        "engine": trainer.engine_name,
        "threads": torch.get_num_threads(),
        "instruction_set": recorded_instruction_set(trainer.device.type) or None,
    }


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> FileRecord:
    # No metadata: safetensors does not fix its order, and equal weights must give equal files.
    contiguous = {key: value.cpu().contiguous() for key, value in tensors.items()}
    return _write(path, safetensors.torch.save(contiguous))


def _write(path: Path, data: bytes) -> FileRecord:
    write_atomically(path, data)
    return FileRecord(path.name, sha256_of(data), len(data))


def _read_tensors(directory: Path, record: FileRecord) -> dict[str, Tensor]:
    data = read_file(directory, record)
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{directory / record.name} holds no tensors: {error}") from error
