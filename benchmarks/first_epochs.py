"""Repeats the notebook's first epochs of 10 blocks with batch norm, to show their spread.

    python benchmarks/first_epochs.py cifar10-jpeg.tar.xz

The notebook evaluates in training mode, and shows a single run. This program trains its network
from several seeds, and from the notebook's initial weights in several orders of the images. It
prints the test accuracies of the first epochs, also in training mode. docs/notebook.md has the
results.
"""

import argparse
import copy
import statistics
import sys
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.cache import cache_folder
from harness.notebook_protocol import Network, initial_weights, published
from harness.tables import machine, say, table
from leadline.models.datasets import Dataset, open_dataset
from leadline.models.spec import TrainingSpec
from leadline.models.training import Trainer
from notebook_table import accuracy_in_training_mode

_NETWORK = Network(10, batch_norm=True)


def main(arguments: Sequence[str]) -> int:
    """Trains and prints a table; returns 0."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    dataset = open_dataset(options.dataset, cache_folder() / "datasets")
    weights = dict(initial_weights())[_NETWORK]
    seeds = [_accuracies(dataset, seed, options.epochs) for seed in range(options.runs)]
    orders = [_accuracies(dataset, seed, options.epochs, weights) for seed in range(options.runs)]
    notebook = [f"{100 * accuracy:.2f}" for accuracy in published()[_NETWORK].test]
    rows = [
        ["seeds", *_spreads(seeds)],
        ["the notebook's weights, in several orders", *_spreads(orders)],
        ["the notebook", *notebook[: options.epochs]],
    ]
    heads = ["start", *(f"epoch {epoch}" for epoch in range(1, options.epochs + 1))]
    sys.stdout.write(f"{table(heads, rows)}\n{options.runs} runs each; {machine()}\n")
    return 0


def _accuracies(
    dataset: Dataset, seed: int, epochs: int, weights: Mapping[str, Tensor] | None = None
) -> list[float]:
    """Returns the test accuracy in training mode after each epoch, a fraction."""
    spec = TrainingSpec(dataset="measured", blocks=10, batch_norm=True, epochs=epochs, seed=seed)
    trainer = Trainer(spec, dataset, device=torch.device("cpu"))
    if weights is not None:
        trainer.network.load_state_dict(weights)
    accuracies = []
    for epoch in range(1, epochs + 1):
        trainer.train_epoch(epoch)
        # A copy, because an evaluation in training mode updates the running statistics.
        network = copy.deepcopy(trainer.network)
        accuracies.append(accuracy_in_training_mode(network, dataset.test))
    say(f"seed {seed}: {', '.join(f'{accuracy:.2%}' for accuracy in accuracies)}")
    return accuracies


def _spreads(runs: Sequence[Sequence[float]]) -> list[str]:
    """Returns "mean (min to max)" for each epoch, in percent."""
    return [
        f"{100 * statistics.mean(epoch):.1f} ({100 * min(epoch):.1f} to {100 * max(epoch):.1f})"
        for epoch in zip(*runs, strict=True)
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="a folder or tar of images, or synthetic")
    parser.add_argument("--runs", type=int, default=20, help="runs of each kind (20)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs per run (3)")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
