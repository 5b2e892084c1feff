"""Writes and reads the JSON that describes a checkpoint."""

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import Any

from leadline.models.architecture import Architecture
from leadline.models.images import IMAGE_SIZE
from leadline.models.metrics import EpochMetrics
from leadline.models.spec import TrainingSpec

FORMAT = 3

# Format 1 had only blocks of two convolutions. Formats 1 and 2 have one file per part.
_TWO_CONVOLUTIONS = {"block_convolutions": 2}

# How an image is prepared for the network. Recorded so that the files are usable
# without Leadline, and checked so that any change raises an error.
PREPROCESSING: dict[str, Any] = {
    "image_size": IMAGE_SIZE,
    "channels": "RGB",
    "layout": "NCHW",
    "normalization": "value / 127.5 - 1",
}


# No separators: a description must not name files outside its folder.
_FILE_NAME = re.compile(r"epoch-\d{5}(\.checkpoint|\.onnx|(\.[a-z]+)?\.safetensors)")


@dataclass(frozen=True)
class FileRecord:
    """The hash and the size of a part of a checkpoint."""

    name: str
    """Of its file."""
    sha256: str
    """In hexadecimal."""
    size: int
    """In bytes."""


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """The description of a checkpoint, without its tensors."""

    epoch: int
    architecture: Architecture
    class_names: tuple[str, ...]
    spec: TrainingSpec
    metrics: EpochMetrics
    dataset_fingerprint: str
    files: dict[str, FileRecord]
    """By kind: "weights" and, if they exist, "predictions" and "optimizer", in the order of
    the parts in the file. The optimizer's state may have been removed since."""
    environment: dict[str, Any]
    """Versions, device and threads of the training. No code depends on it."""

    @property
    def weights_sha256(self) -> str:
        """The SHA-256 of the weights as safetensors, in hexadecimal."""
        return self.files["weights"].sha256


def to_json(info: CheckpointInfo) -> bytes:
    """Encodes the description of a checkpoint as one line."""
    description = {
        "format": FORMAT,
        "epoch": info.epoch,
        "architecture": dataclasses.asdict(info.architecture),
        "preprocessing": PREPROCESSING,
        "class_names": list(info.class_names),
        "spec": info.spec.to_dict(),
        "metrics": dataclasses.asdict(info.metrics),
        "dataset_fingerprint": info.dataset_fingerprint,
        "files": {kind: dataclasses.asdict(record) for kind, record in info.files.items()},
        "environment": info.environment,
    }
    return json.dumps(description, allow_nan=False).encode()


def from_json(data: bytes) -> CheckpointInfo:
    """Decodes the result of `to_json`.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the JSON is damaged or of another format.
    """
    description = json.loads(data)
    if description["format"] == 1:
        for part in ("architecture", "spec"):
            description[part] = _TWO_CONVOLUTIONS | description[part]
    elif description["format"] not in (2, FORMAT):
        raise ValueError(f"its format is {description['format']!r}, but must be from 1 to {FORMAT}")
    if description["preprocessing"] != PREPROCESSING:
        raise ValueError("its preprocessing is not that of this version")
    files = {kind: FileRecord(**record) for kind, record in description["files"].items()}
    outside = [record.name for record in files.values() if not _FILE_NAME.fullmatch(record.name)]
    if outside:
        raise ValueError(f"it lists a file outside its folder: {outside[0]!r}")
    if "weights" not in files:
        raise ValueError("it lists no file of kind weights")
    return CheckpointInfo(
        epoch=description["epoch"],
        architecture=Architecture(**description["architecture"]),
        class_names=tuple(description["class_names"]),
        spec=TrainingSpec.from_dict(description["spec"]),
        metrics=EpochMetrics(**description["metrics"]),
        dataset_fingerprint=description["dataset_fingerprint"],
        files=files,
        environment=description["environment"],
    )
