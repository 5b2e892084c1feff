"""Why 3 epochs can beat 51: accuracies after equal epochs and after equal steps.

    python benchmarks/batch_size.py cifar10-jpeg.tar.xz --json runs.json
    python benchmarks/batch_size.py --read runs.json --figure batch-size.png

It trains the notebook's network of 2 blocks with several batch sizes and learning rates, each for
at least 3 epochs and 20,000 steps. Then it trains shallow networks, with and without the tail's 100
features, for 3 epochs in batches of 4. With `--read` it trains nothing and reports earlier runs.
docs/why-depth-fails.md has the tables.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from harness.batch_size_report import Found, draw, report
from harness.cache import cache_folder
from harness.shallow import DEEP, SHALLOW
from harness.steps import Point, Recipe, milestones, train
from harness.tables import say, write_json
from leadline.models.datasets import Dataset, open_dataset

BATCH_SIZES = (4, 8, 16, 32, 64, 128)
LEARNING_RATES = (0.01, 0.1, 0.001)
IMAGES = 50_000
"""Training images of CIFAR-10 and of `synthetic`."""

EPOCHS = 3
STEPS = 20_000
"""The notebook's steps: 51 epochs in batches of 128 are 19,941."""

SMALL_BATCH = 4


def main(arguments: Sequence[str]) -> int:
    """Trains or reads earlier runs, and prints the tables."""
    asked = _parser().parse_args(arguments)
    runs = _read(asked.read) if asked.read else {}
    if asked.dataset is not None:
        dataset = open_dataset(asked.dataset, asked.cache or cache_folder() / "datasets")
        for recipe in _recipes(asked):
            say(f"{recipe}")
            runs[recipe] = _measure(recipe, dataset)
            _write(asked.json, runs)
    budgets = {"images": IMAGES, "epochs": EPOCHS, "steps": STEPS}
    sys.stdout.write(report(runs, **budgets))
    _write(asked.json, runs)
    if asked.figure is not None:
        draw(runs, asked.figure, **budgets)
    return 0


def _recipes(asked: argparse.Namespace) -> Iterator[Recipe]:
    if "batches" in asked.parts:
        for rate, size in itertools.product(asked.learning_rates, asked.batch_sizes):
            yield Recipe(network=DEEP, batch_size=size, learning_rate=rate, seed=asked.seed)
    if "networks" in asked.parts:
        for name in asked.networks:
            if name != DEEP or "batches" not in asked.parts:
                yield Recipe(
                    network=name, batch_size=SMALL_BATCH, learning_rate=0.01, seed=asked.seed
                )
    if "tutorial" in asked.parts:
        # The learning rate of PyTorch's tutorial; with the tutorial's momentum it acts like 0.01.
        for name in asked.networks:
            yield Recipe(
                network=name,
                batch_size=SMALL_BATCH,
                learning_rate=0.001,
                momentum=0.9,
                seed=asked.seed,
            )


def _measure(recipe: Recipe, dataset: Dataset) -> list[Point]:
    steps = STEPS if recipe.network == DEEP and not recipe.momentum else 0
    at = milestones(
        images=len(dataset.train), batch_size=recipe.batch_size, epochs=EPOCHS, steps=steps
    )
    points = []
    for point in train(recipe, dataset, at):
        say(f"  step {point.step:,}: {point.test_accuracy:.1%}, loss {point.train_loss:.4f}")
        points.append(point)
    return points


def _read(paths: Sequence[Path]) -> Found:
    return {
        Recipe(**run["recipe"]): [Point(**point) for point in run["points"]]
        for path in paths
        for run in json.loads(path.read_text())["runs"]
    }


def _write(path: Path | None, runs: Found) -> None:
    records = [
        {"recipe": asdict(recipe), "points": [asdict(point) for point in points]}
        for recipe, points in runs.items()
    ]
    write_json(path, {"runs": records})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/batch_size.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", nargs="?", help="a folder or tar of images, or synthetic")
    parser.add_argument("--cache", type=Path, help="folder for the decoded dataset")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=("batches", "networks", "tutorial"),
        default=["batches", "networks"],
        help="what to measure (batches networks)",
    )
    parser.add_argument("--networks", nargs="+", choices=SHALLOW, default=[*SHALLOW])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=BATCH_SIZES)
    parser.add_argument("--learning-rates", nargs="+", type=float, default=LEARNING_RATES)
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and order (0)")
    parser.add_argument(
        "--read", nargs="+", type=Path, metavar="FILE", help="report earlier files of --json"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to it")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw to it: svg, png or pdf")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
