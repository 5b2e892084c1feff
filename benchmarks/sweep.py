"""Measures the notebook's six runs: its own loop, one after another, against Leadline's sweep.

    python benchmarks/sweep.py /path/of/cifar10.tar

Each round trains one epoch of each network with the notebook's loop, and some epochs of all six as
sweeps, whose jobs run side by side. A sweep's time counts from submission to its last event, and
includes the start of the workers. Both train blocks of one convolution; the notebook's loop also
computes a second one, and discards its result. Both use a GPU if there is one.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.arithmetic import best_device, device_name
from harness.cache import cache_folder
from harness.epochs import Service, notebook, service
from harness.stats import Spread
from harness.tables import machine, say, table, write_json
from leadline.models.datasets import open_dataset
from leadline.v1.training_spec_pb2 import TrainingSpec

_DEPTHS = (2, 4, 6, 8, 10)
_RUNS = [*((blocks, False) for blocks in _DEPTHS), (10, True)]


@dataclass(frozen=True)
class Round:
    """The seconds per epoch of all six runs."""

    notebook: float
    leadline: float


def main(arguments: Sequence[str]) -> int:
    """Measures and prints a table."""
    options = _parser().parse_args(arguments)
    cache = cache_folder() / "datasets"
    fingerprint = open_dataset(options.dataset, cache).fingerprint
    rounds = []
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder, "data"), options.dataset) as leadline,
    ):
        leadline.epochs(1, dataset="measured", blocks=0)  # decodes the dataset
        for number in range(1, options.rounds + 1):
            theirs = sum(_notebook_epoch(cache, fingerprint, *run) for run in _RUNS)
            say(f"round {number}, notebook: {theirs:.1f} s")
            ours = _sweep(leadline, options.epochs) / options.epochs
            say(f"round {number}, leadline: {ours:.1f} s")
            rounds.append(Round(theirs, ours))
    sys.stdout.write(_report(rounds, options.epochs))
    write_json(options.json, {"rounds": [vars(pair) for pair in rounds]})
    return 0


def _notebook_epoch(cache: Path, fingerprint: str, blocks: int, batch_norm: bool) -> float:
    with notebook(cache, fingerprint, blocks=blocks, batch_norm=batch_norm) as loop:
        seconds: float = loop.epoch().seconds
    return seconds


def _sweep(leadline: Service, epochs: int) -> float:
    """Trains the six networks, and returns the seconds."""
    started = time.monotonic()
    common: dict[str, Any] = {"dataset": "measured", "epochs": epochs, "block_convolutions": 1}
    sweeps = [
        leadline.client.train_sweep({"batch_norm": [True]}, TrainingSpec(blocks=10, **common)),
        leadline.client.train_sweep({"blocks": _DEPTHS[::-1]}, TrainingSpec(**common)),
    ]
    for sweep in sweeps:
        sweep.result()
    return time.monotonic() - started


def _report(rounds: list[Round], epochs: int) -> str:
    theirs = Spread.of([pair.notebook for pair in rounds])
    ours = Spread.of([pair.leadline for pair in rounds])
    ratio = Spread.of_ratios([pair.notebook for pair in rounds], [pair.leadline for pair in rounds])
    rows = [
        ["notebook, one after another", theirs.text(1), f"{theirs.median * 51 / 60:,.1f}"],
        ["leadline, side by side", ours.text(1), f"{ours.median * 51 / 60:,.1f}"],
    ]
    heads = ("six runs", "s an epoch of all", "minutes for 51 epochs")
    return (
        f"{table(heads, rows)}\nnotebook / leadline: {ratio.text(2)}\n"
        f"sweeps of {epochs} epochs, on the {device_name(best_device())}\n{machine()}\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/sweep.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", help="a folder or tar of images, or synthetic")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of each sweep (4)")
    parser.add_argument("--rounds", type=int, default=1, help="rounds of both loops (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to it")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
