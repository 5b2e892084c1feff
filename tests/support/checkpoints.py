"""What tests do to checkpoints on disk: change their descriptions, and write those of before."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from leadline.models._files import sha256_of
from leadline.models.checkpoint_files import load_predictions, open_checkpoint
from leadline.models.export import load_onnx


def edit_description(
    path: Path, change: Callable[[dict[str, Any]], object], *, parts: bytes | None = None
) -> None:
    """Changes the description in a checkpoint's file, and its parts if there are new ones."""
    _, description, old_parts = path.read_bytes().split(b"\n", 2)
    values = json.loads(description)
    change(values)
    changed = json.dumps(values).encode()
    new_parts = old_parts if parts is None else parts
    path.write_bytes(b"\n".join((sha256_of(changed).encode(), changed, new_parts)))


def make_older(
    folder: Path,
    epoch: int,
    change: Callable[[dict[str, Any]], object] = lambda _: None,
    *,
    has_all_predictions: bool = True,
) -> None:
    """Writes a checkpoint as older versions did, in the place of this version's.

    Args:
        folder: of the checkpoint.
        epoch: of the checkpoint.
        change: of its description, before it is written.
        has_all_predictions: whether it has those of the training set, and the
            probabilities of the true classes.
    """
    reader, stem = open_checkpoint(folder, epoch), f"epoch-{epoch:05}"
    test, train = load_predictions(folder, epoch), load_predictions(folder, epoch, "train")
    predictions: dict[str, Any] = {
        "predicted": test.predicted.astype(np.uint8),
        "probability": test.probability,
    }
    if has_all_predictions:
        predictions |= {
            "true_probability": test.true_probability,
            "train_predicted": train.predicted.astype(np.uint8),
            "train_probability": _in_steps(train.probability),
            "train_true_probability": _in_steps(train.true_probability),
        }
    parts = {
        "weights": ("safetensors", reader.read("weights")),
        "predictions": ("predictions.safetensors", safetensors.numpy.save(predictions)),
        "onnx": ("onnx", load_onnx(folder, epoch)),
    }
    _, text, _ = (folder / f"{stem}.checkpoint").read_bytes().split(b"\n", 2)
    description = json.loads(text)
    description["format"] = 2
    optimizer = reader.info.files.get("optimizer")
    description["files"] = {"optimizer": asdict(optimizer)} if optimizer else {}
    for kind, (suffix, data) in parts.items():
        name = f"{stem}.{suffix}"
        (folder / name).write_bytes(data)
        description["files"][kind] = {"name": name, "sha256": sha256_of(data), "size": len(data)}
    change(description)
    (folder / f"{stem}.json").write_text(json.dumps(description, indent=2) + "\n")
    (folder / f"{stem}.checkpoint").unlink()


def _in_steps(fractions: np.ndarray | None) -> np.ndarray:
    assert fractions is not None
    return np.rint(fractions * 65_535.0).astype(np.uint16)
