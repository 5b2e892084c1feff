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

from leadline.models._description import CheckpointInfo
from leadline.models._files import make_folder
from leadline.models.checkpoint_files import (
    CheckpointError,
    CheckpointReader,
    list_epochs,
    open_checkpoint,
    stem_of,
    write_checkpoint,
    write_optimizer_state,
)
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
        directory: created if it does not exist.
        trainer: in its state right after the epoch.
        outcome: the result of `train_epoch`.

    Raises:
        FileExistsError: the epoch has a checkpoint, which is never replaced.
        OSError: a file cannot be written.
    """
    make_folder(directory)
    epoch = outcome.metrics.epoch
    if epoch in list_epochs(directory):
        raise FileExistsError(f"{directory} has a checkpoint of epoch {epoch} already")
    state = _optimizer_state(trainer)
    info = CheckpointInfo(
        epoch=epoch,
        architecture=trainer.architecture,
        class_names=trainer.dataset.class_names,
        spec=trainer.spec,
        metrics=outcome.metrics,
        dataset_fingerprint=trainer.dataset.fingerprint,
        files={"optimizer": write_optimizer_state(directory, epoch, _to_bytes(state))}
        if state
        else {},
        environment=_environment(trainer),
    )
    predictions = encode_predictions(
        outcome.train.predictions,
        outcome.test.predictions,
        classes=trainer.architecture.classes,
    )
    weights = _to_bytes(trainer.network.state_dict())
    return write_checkpoint(directory, info, {"weights": weights, "predictions": predictions})


def load_checkpoint(directory: Path, epoch: int) -> Checkpoint:
    """Loads the weights of an epoch, 1 for the first.

    Raises:
        CheckpointError: a file is missing, truncated or damaged.
    """
    return _checkpoint(directory, open_checkpoint(directory, epoch))


def restore(trainer: Trainer, directory: Path, epoch: int) -> CheckpointInfo:
    """Restores a trainer's state after an epoch, bit for bit.

    Raises:
        CheckpointError: a file is missing or damaged, the optimizer's state is no longer
            kept, or the checkpoint is of another spec or dataset than the trainer. The
            trainer may then be unusable, unless another call succeeds.
    """
    reader = open_checkpoint(directory, epoch)
    info = reader.info
    if not _is_same_training(info.spec, trainer.spec):
        raise CheckpointError(f"{stem_of(epoch)} in {directory} is of another training spec")
    if info.dataset_fingerprint != trainer.dataset.fingerprint:
        raise CheckpointError(f"{stem_of(epoch)} in {directory} is of another dataset")
    has_state = "optimizer" in info.files
    state = _read_tensors(directory, reader, "optimizer") if has_state else {}
    trainer.network.load_state_dict(_checkpoint(directory, reader).network().state_dict())
    _restore_optimizer(trainer, state, directory)
    return info


def _checkpoint(directory: Path, reader: CheckpointReader) -> Checkpoint:
    return Checkpoint(reader.info, _read_tensors(directory, reader, "weights"))


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


def _restore_optimizer(trainer: Trainer, tensors: dict[str, Tensor], directory: Path) -> None:
    indices = {name: i for i, (name, _) in enumerate(trainer.network.named_parameters())}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, slot = key.rpartition("/")
        if name not in indices:
            raise CheckpointError(f"{directory} has state of {name!r}, which the network lacks")
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


def _to_bytes(tensors: dict[str, Tensor]) -> bytes:
    # No metadata: safetensors does not fix its order, and equal weights must give equal bytes.
    contiguous = {key: value.cpu().contiguous() for key, value in tensors.items()}
    return safetensors.torch.save(contiguous)


def _read_tensors(directory: Path, reader: CheckpointReader, kind: str) -> dict[str, Tensor]:
    data = reader.read(kind)
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        path = directory / reader.info.files[kind].name
        raise CheckpointError(f"the {kind} in {path} are no tensors: {error}") from error
