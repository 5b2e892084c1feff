"""What the description of a checkpoint says, as JSON, and how it is read back."""

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

# Format 1 knew blocks of two convolutions only. Formats 1 and 2 have a file for each part.
_TWO_CONVOLUTIONS = {"block_convolutions": 2}

# What an image goes through before the network sees it. Recorded so that whoever
# finds the files needs no code of ours, and checked so that it never changes unseen.
PREPROCESSING: dict[str, Any] = {
    "image_size": IMAGE_SIZE,
    "channels": "RGB",
    "layout": "NCHW",
    "normalization": "value / 127.5 - 1",
}


# No separators: a description that came from elsewhere must not lead elsewhere.
_FILE_NAME = re.compile(r"epoch-\d{5}(\.checkpoint|\.onnx|(\.[a-z]+)?\.safetensors)")


@dataclass(frozen=True)
class FileRecord:
    """A part of a checkpoint as it was written."""

    name: str
    """Of its file."""
    sha256: str
    """In hexadecimal."""
    size: int
    """In bytes."""


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """All that is known of a checkpoint but the numbers themselves."""

    epoch: int
    architecture: Architecture
    class_names: tuple[str, ...]
    spec: TrainingSpec
    metrics: EpochMetrics
    dataset_fingerprint: str
    files: dict[str, FileRecord]
    """By kind: "weights" and, if there are any, "predictions" and "optimizer", in the order
    in which they lie in their file. The optimizer's may have been removed since."""
    environment: dict[str, Any]
    """What it was trained with: versions, device, threads. For people."""

    @property
    def weights_sha256(self) -> str:
        """The SHA-256 of the weights as safetensors, in hexadecimal."""
        return self.files["weights"].sha256


def to_json(info: CheckpointInfo) -> bytes:
    """Describes a checkpoint, in one line."""
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
    """Reads back what `to_json` gave.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is damaged or of another format.
    """
    description = json.loads(data)
    if description["format"] == 1:
        for part in ("architecture", "spec"):
            description[part] = _TWO_CONVOLUTIONS | description[part]
    elif description["format"] not in (2, FORMAT):
        raise ValueError(
            f"it is of format {description['format']!r}, and 1 to {FORMAT} are known here"
        )
    if description["preprocessing"] != PREPROCESSING:
        raise ValueError("its images were prepared otherwise than they are here")
    files = {kind: FileRecord(**record) for kind, record in description["files"].items()}
    outside = [record.name for record in files.values() if not _FILE_NAME.fullmatch(record.name)]
    if outside:
        raise ValueError(f"it names a file outside its folder: {outside[0]!r}")
    if "weights" not in files:
        raise ValueError("it names no file of weights")
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
