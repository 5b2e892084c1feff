"""Measures with Leadline why deep networks fail to learn, and what repairs them.

    python benchmarks/why_depth_fails.py --dataset cifar10=cifar10-jpeg.tar.xz --epochs 3

It starts a server, and trains networks of blocks of one and of two convolutions, and repaired
versions of the deepest, all with diagnostics. It prints Markdown tables: the accuracies, and the
spread of the images and the size of the gradient after each convolution. Both are from before the
first step and after the last epoch. A last table has the factor by which a convolution divides
them. With `--read` it trains nothing and reports an earlier run. docs/why-depth-fails.md has the
tables.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from harness.depth import Curve
from harness.depth_report import draw, report
from harness.models import serves
from harness.processes import ServerProcess, free_port
from harness.tables import say, write_json
from leadline.client import Client, TrainingJob
from leadline.models.spec import Initialization, TrainingSpec
from leadline.server.api.specs import from_spec

# The notebook's networks, repairs of its deepest, and the blocks that it declared.
NETWORKS = {
    "2 plain": TrainingSpec(blocks=2),
    "4 plain": TrainingSpec(blocks=4),
    "6 plain": TrainingSpec(blocks=6),
    "10 plain": TrainingSpec(blocks=10),
    "10 Kaiming": TrainingSpec(blocks=10, initialization=Initialization.KAIMING),
    "10 batch norm": TrainingSpec(blocks=10, batch_norm=True),
    "10 residual": TrainingSpec(blocks=10, residual=True),
    "10 residual, Kaiming": TrainingSpec(
        blocks=10, residual=True, initialization=Initialization.KAIMING
    ),
    "2 x 2 plain": TrainingSpec(blocks=2, block_convolutions=2),
    "10 x 2 plain": TrainingSpec(blocks=10, block_convolutions=2),
    "10 x 2 batch norm": TrainingSpec(blocks=10, block_convolutions=2, batch_norm=True),
}


def main(arguments: Sequence[str]) -> int:
    """Prints the tables; returns 0."""
    asked = _parse(arguments)
    name = asked.dataset.partition("=")[0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.data_dir or Path(scratch) / "data"
        if asked.read is None:
            curves = _train(asked, folder, Path(scratch) / "server.log", name)
        else:
            curves = _read(asked.read)
    sys.stdout.write(report(curves, name))
    write_json(asked.json, {"curves": {label: asdict(one) for label, one in curves.items()}})
    if asked.figure is not None:
        draw(curves, asked.figure)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dataset", default="synthetic", help="NAME, or NAME=SOURCE")
    parser.add_argument("--epochs", type=int, default=3, help="epochs per network (3)")
    parser.add_argument("--threads", type=int, help="compute threads (all cores)")
    parser.add_argument("--data-dir", type=Path, help="a data directory to keep (none)")
    parser.add_argument("--read", type=Path, help="only report a file of --json")
    parser.add_argument("--json", type=Path, help="write all figures to it")
    parser.add_argument("--figure", type=Path, help="draw to it: svg, png or pdf")
    return parser.parse_args(arguments)


def _train(asked: argparse.Namespace, folder: Path, log: Path, name: str) -> dict[str, Curve]:
    port = free_port()
    server = ServerProcess(_command(asked, folder, port), log=log, core=None)
    curves = {}
    try:
        with Client(f"127.0.0.1:{port}") as client:
            server.wait_until(lambda: serves(client))
            for label, spec in NETWORKS.items():
                say(f"training {label} for {asked.epochs} epochs")
                job = client.train(
                    from_spec(spec), dataset=name, epochs=asked.epochs, diagnostics=True
                )
                curves[label] = _follow(job, Curve(spec.block_convolutions))
    finally:
        server.stop()
    return curves


def _command(asked: argparse.Namespace, folder: Path, port: int) -> list[str]:
    flags = ["--data-dir", str(folder), "--port", str(port), "--metrics-port", "0"]
    if "=" in asked.dataset:
        flags += ["--dataset", asked.dataset]
    if asked.threads is not None:
        flags += ["--worker-threads", str(asked.threads)]
    return [sys.executable, "-m", "leadline.server.main", "--log-level", "warning", *flags]


def _follow(job: TrainingJob, curve: Curve) -> Curve:
    for event in job.events():
        match event.WhichOneof("event"):
            case "started":
                curve.add(event.started.diagnosis)
            case "epoch":
                curve.add(event.epoch.diagnosis)
                curve.train_accuracies.append(event.epoch.train_accuracy)
                curve.test_accuracies.append(event.epoch.test_accuracy)
            case _:
                pass
    job.result()  # raises if a job failed
    return curve


def _read(path: Path) -> dict[str, Curve]:
    stored = json.loads(path.read_text())
    return {label: Curve(**curve) for label, curve in stored["curves"].items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
