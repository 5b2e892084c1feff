"""Compares the serving engine's predictions with those of the checkpoint in torch.

    python benchmarks/agreement.py leadline-data

It reads a server's data directory; no server has to run. For every kept epoch of every model it
predicts the whole test split twice: in full batches, and image by image.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from leadline.models.batches import normalize
from leadline.models.checkpoint_files import list_epochs
from leadline.models.checkpoints import Checkpoint, load_checkpoint
from leadline.models.datasets import find_dataset
from leadline.models.evaluation import BATCH_SIZE
from leadline.server.serving.classifier import MAX_BATCH, Classifier
from leadline.server.serving.loaded import load_classifier

_MOST_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Agreement:
    """The differences between two sets of predictions of one epoch."""

    name: str
    images: int
    other_classes: int
    """Images with different predicted classes."""

    difference: float
    """The largest difference of a probability."""

    @property
    def holds(self) -> bool:
        """Whether all classes agree, and all probabilities within the tolerance."""
        return not self.other_classes and self.difference <= _MOST_DIFFERENCE


def main(arguments: Sequence[str]) -> int:
    """Prints a row per epoch; returns 0 if all agree, 1 if one differs or there is none."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--device", default="cpu", help="where the engine runs [default: cpu]")
    options = parser.parse_args(arguments)
    comparisons = []
    _say("| epoch | images | other classes | largest difference of probabilities |")
    _say("| --- | --- | --- | --- |")
    for comparison in _compare(options.data_dir, options.device):
        _say(
            f"| {comparison.name} | {comparison.images:,} "
            f"| {comparison.other_classes} | {comparison.difference:.1e} |"
        )
        comparisons.append(comparison)
    return 0 if comparisons and all(comparison.holds for comparison in comparisons) else 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _compare(data_dir: Path, device: str) -> Iterator[Agreement]:
    for folder in sorted((data_dir / "models").glob("*/attempt-*")):
        for epoch in list_epochs(folder):
            checkpoint = load_checkpoint(folder, epoch)
            dataset = find_dataset(checkpoint.info.dataset_fingerprint, data_dir / "datasets")
            name = f"{folder.parent.name}/epochs/{epoch}"
            engine = load_classifier(folder, epoch, device=device, threads=1)
            yield _agreement(name, checkpoint, engine, dataset.test.images)


@torch.inference_mode()
def _agreement(
    name: str, checkpoint: Checkpoint, engine: Classifier, images: np.ndarray
) -> Agreement:
    network, other, difference = checkpoint.network(), 0, 0.0
    for start in range(0, len(images), BATCH_SIZE):
        pixels = np.array(images[start : start + BATCH_SIZE])
        logits = network(normalize(torch.from_numpy(pixels)))
        expected = logits.softmax(1).numpy()
        for size in (MAX_BATCH, 1):
            parts = [engine.score([pixels[at : at + size]]) for at in range(0, len(pixels), size)]
            ours = np.concatenate([part.logits for part in parts])
            probabilities = np.concatenate([part.probabilities for part in parts])
            other += int((ours.argmax(1) != logits.numpy().argmax(1)).sum())
            difference = max(difference, float(np.abs(probabilities - expected).max()))
    return Agreement(name, len(images), other, difference)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
