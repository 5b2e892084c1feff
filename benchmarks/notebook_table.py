"""Reproduces the notebook's table: its six networks for 51 epochs, beside its own figures.

    python benchmarks/notebook_table.py cifar10-jpeg.tar.xz --figures docs/images

The runs are sweeps on a server with default options: three seeds for 2 and 4 blocks and for 10 with
batch norm, one seed for the others. With --notebook-weights each network starts from the notebook's
own initial weights. A job cannot set initial weights, so the worker's trainer then runs in
processes of this program. docs/notebook.md has the results.
"""

import argparse
import copy
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.cache import cache_folder
from harness.epochs import Service, service
from harness.notebook_figures import draw_figures
from harness.notebook_protocol import (
    EPOCHS,
    NETWORKS,
    Network,
    Run,
    initial_weights,
    published,
)
from harness.tables import machine, say, table, write_json
from leadline.client import TrainingJob
from leadline.models.batches import normalize
from leadline.models.checkpoints import load_checkpoint
from leadline.models.datasets import Dataset, Split, open_dataset
from leadline.models.network import BlockNetwork
from leadline.models.spec import TrainingSpec as TrainerSpec
from leadline.models.training import Trainer
from leadline.server.storage.artifacts import Artifacts
from leadline.v1.training_spec_pb2 import TrainingSpec

_BATCH_SIZE = 128
_SEEDS = (0, 1, 2)
_PLAIN_ONCE = (6, 8, 10)
_PLAIN_WITH_SEEDS = (2, 4)

# The runs of each network, one per seed, and their test accuracies in training mode after epoch 1.
Runs = dict[Network, list[Run]]


def main(arguments: Sequence[str]) -> int:
    """Trains or reads earlier runs, and prints the table; returns 0."""
    options = _parser().parse_args(arguments)
    if options.read is not None:
        runs, in_training_mode = _read(options.read)
    elif options.notebook_weights:
        networks = [network for network in NETWORKS if network.slug in options.networks]
        runs, in_training_mode = _from_notebook_weights(options.dataset, networks, options.epochs)
    else:
        runs, in_training_mode = _by_jobs(options.dataset, options.epochs)
    sys.stdout.write(_report(runs, in_training_mode) + "\n")
    figures = {network.slug: [asdict(run) for run in seeds] for network, seeds in runs.items()}
    write_json(options.json, {"runs": figures, "in_training_mode": in_training_mode})
    if options.figures is not None:
        draw_figures(runs, options.figures)
    return 0


def _by_jobs(dataset: str, epochs: int) -> tuple[Runs, list[float]]:
    """Trains with sweeps, and evaluates the networks with batch norm like the notebook."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch, "data")
        with service(data, dataset) as leadline:
            jobs = _sweep_all(leadline, epochs)
            runs = {network: [_run_of(job) for job in seeds] for network, seeds in jobs.items()}
        test = open_dataset(dataset, cache_folder() / "datasets").test
        artifacts = Artifacts(data / "models")
        first_epochs = [
            load_checkpoint(artifacts.folder(job.id, 1), 1).network()
            for job in jobs[Network(10, True)]
        ]
        return runs, [accuracy_in_training_mode(network, test) for network in first_epochs]


def _sweep_all(leadline: Service, epochs: int) -> dict[Network, list[TrainingJob]]:
    """Submits the notebook's runs as three sweeps, waits, and returns their jobs."""
    common: dict[str, Any] = {"dataset": "measured", "epochs": epochs}
    train = leadline.client.train_sweep
    sweeps = [
        train({"seed": _SEEDS}, TrainingSpec(blocks=10, batch_norm=True, **common)),
        train({"blocks": _PLAIN_WITH_SEEDS[::-1], "seed": _SEEDS}, TrainingSpec(**common)),
        train({"blocks": _PLAIN_ONCE[::-1]}, TrainingSpec(**common)),
    ]
    jobs: dict[Network, list[TrainingJob]] = {network: [] for network in NETWORKS}
    for sweep in sweeps:
        sweep.result()
        for job in sweep.jobs():
            spec = job.refresh().spec
            jobs[Network(spec.blocks, spec.batch_norm)].append(job)
        say(f"{sweep.id} is done")
    return jobs


def _run_of(job: TrainingJob) -> Run:
    epochs = list(job.epochs())
    return Run(
        [epoch.train_accuracy for epoch in epochs], [epoch.test_accuracy for epoch in epochs]
    )


@torch.no_grad()
def accuracy_in_training_mode(network: BlockNetwork, split: Split) -> float:
    """Returns the accuracy with the batch statistics of 128 images.

    The notebook never leaves training mode, so it measures this accuracy. Its batches mix the
    classes, like the original files. A folder or tar is read class by class, so this function
    shuffles it first.
    """
    network.train()
    correct = 0
    order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(0))
    images, targets = torch.tensor(split.images), torch.tensor(split.labels)
    for batch in torch.split(order, _BATCH_SIZE):
        pixels, labels = images[batch], targets[batch]
        correct += int((network(normalize(pixels)).argmax(dim=1) == labels).sum().item())
    return correct / len(split.labels)


def _from_notebook_weights(
    dataset: str, networks: Sequence[Network], epochs: int
) -> tuple[Runs, list[float]]:
    """Trains networks from the notebook's initial weights, one process per core."""
    cache = cache_folder() / "datasets"
    open_dataset(dataset, cache)  # decodes it once for all processes
    starts = dict(initial_weights())
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
        futures = {
            network: pool.submit(_train_from, network, starts[network], dataset, cache, epochs)
            for network in networks
        }
        results = {network: future.result() for network, future in futures.items()}
    runs = {network: [run] for network, (run, _) in results.items()}
    return runs, [accuracy for _, accuracy in results.values() if accuracy is not None]


def _train_from(
    network: Network, weights: dict[str, Tensor], dataset: str, cache: Path, epochs: int
) -> tuple[Run, float | None]:
    """Trains a network, and evaluates one with batch norm in training mode after epoch 1."""
    trainer = _trainer(network, open_dataset(dataset, cache), epochs)
    trainer.network.load_state_dict(weights)
    metrics = [trainer.train_epoch(1).metrics]
    in_training_mode = None
    if network.batch_norm:
        # A copy, because the evaluation changes the running statistics.
        copied = copy.deepcopy(trainer.network)
        in_training_mode = accuracy_in_training_mode(copied, trainer.dataset.test)
    metrics += [trainer.train_epoch(epoch).metrics for epoch in range(2, epochs + 1)]
    say(f"{network.label} is done")
    run = Run(
        [epoch.train_accuracy for epoch in metrics], [epoch.test_accuracy for epoch in metrics]
    )
    return run, in_training_mode


def _trainer(network: Network, dataset: Dataset, epochs: int) -> Trainer:
    spec = TrainerSpec(blocks=network.blocks, batch_norm=network.batch_norm, epochs=epochs)
    return Trainer(spec, dataset, device=torch.device("cpu"), threads=1)


def _report(runs: Runs, in_training_mode: Sequence[float]) -> str:
    theirs = published()
    heads = (
        *("network", "train", "test", "mean test", "leaves 10 % in epoch"),
        *("notebook: train", "test", "leaves 10 % in epoch"),
    )
    parts = [table(heads, (_row(network, runs[network], theirs[network]) for network in runs))]
    if in_training_mode:
        parts.append(
            "10 blocks, batch norm, after epoch 1, evaluated in training mode as the notebook "
            f"did: {_percents(in_training_mode)}; the notebook: "
            f"{100 * theirs[Network(10, True)].test[0]:.2f}\n"
        )
    parts.append(f"{EPOCHS} epochs in the notebook's protocol; {machine()}")
    return "\n".join(parts)


def _row(network: Network, runs: Sequence[Run], theirs: Run) -> list[str]:
    tests = [run.test[-1] for run in runs]
    return [
        network.label,
        _percents([run.train[-1] for run in runs]),
        _percents(tests),
        f"{100 * statistics.fmean(tests):.1f}",
        ", ".join(_epoch(run) for run in runs),
        *(_percents([values[-1]], digits=2) for values in (theirs.train, theirs.test)),
        _epoch(theirs),
    ]


def _percents(fractions: Sequence[float], digits: int = 1) -> str:
    return ", ".join(f"{100 * fraction:.{digits}f}" for fraction in fractions)


def _epoch(run: Run) -> str:
    return str(run.leaves_chance() or "never")


def _read(path: Path) -> tuple[Runs, list[float]]:
    loaded = json.loads(path.read_text())
    runs = {
        network: [Run(**run) for run in loaded["runs"][network.slug]]
        for network in NETWORKS
        if network.slug in loaded["runs"]
    }
    return runs, loaded["in_training_mode"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/notebook_table.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", help="a folder or tar of images, or synthetic")
    parser.add_argument(
        "--notebook-weights", action="store_true", help="start from the notebook's initial weights"
    )
    slugs = [network.slug for network in NETWORKS]
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=slugs,
        default=slugs,
        help="with --notebook-weights: only these",
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"epochs per run ({EPOCHS})")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="draw one figure per network")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to it")
    parser.add_argument("--read", type=Path, metavar="FILE", help="only report a file of --json")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
