"""Why deep networks fail to learn here, and what mends it: measured by Leadline itself.

    python benchmarks/why_depth_fails.py --dataset cifar10=cifar10-jpeg.tar.xz --epochs 10

It starts a server, trains the notebook's networks and two that mend the deepest
one, each with diagnostics, and prints Markdown tables: the accuracies, and for
each block how far apart images still are and how large a gradient comes back,
before the first step and after the last epoch. docs/why-depth-fails.md has them.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.processes import ServerProcess, free_port
from harness.tables import machine, say, table, write_json
from leadline.client import BlockDiagnosis, Client, HealthStatus, TrainingJob, UnavailableError
from leadline.v1.training_spec_pb2 import INITIALIZATION_KAIMING, TrainingSpec

# What the notebook compared, and the two remedies.
NETWORKS = {
    "2 plain": TrainingSpec(blocks=2),
    "4 plain": TrainingSpec(blocks=4),
    "6 plain": TrainingSpec(blocks=6),
    "10 plain": TrainingSpec(blocks=10),
    "10 batch norm": TrainingSpec(blocks=10, batch_norm=True),
    "10 residual, Kaiming": TrainingSpec(
        blocks=10, residual=True, initialization=INITIALIZATION_KAIMING
    ),
}


@dataclass
class Curve:
    """What became of one network.

    The lists have an entry for the start, where no accuracy is known, and one
    for each epoch; those of a diagnosis one for the head and one for each block.
    """

    train_accuracies: list[float] = field(default_factory=list)
    test_accuracies: list[float] = field(default_factory=list)
    activation_stds: list[list[float]] = field(default_factory=list)
    gradient_norms: list[list[float]] = field(default_factory=list)

    def add(self, diagnosis: Sequence[BlockDiagnosis]) -> None:
        """Adds what was measured at one moment."""
        self.activation_stds.append([one.activation_std for one in diagnosis])
        self.gradient_norms.append([one.gradient_norm for one in diagnosis])


def main(arguments: Sequence[str]) -> int:
    """Prints the tables; returns 0."""
    asked = _parse(arguments)
    name = asked.dataset.partition("=")[0]
    curves: dict[str, Curve] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.data_dir or Path(scratch) / "data"
        port = free_port()
        server = ServerProcess(
            _command(asked, folder, port), log=Path(scratch) / "server.log", core=None
        )
        try:
            with Client(f"127.0.0.1:{port}") as client:
                server.wait_until(lambda: _serves(client))
                for label, spec in NETWORKS.items():
                    say(f"training {label} for {asked.epochs} epochs")
                    curves[label] = _follow(
                        client.train(spec, dataset=name, epochs=asked.epochs, diagnostics=True)
                    )
        finally:
            server.stop()
    sys.stdout.write(_report(curves, name, asked.epochs) + "\n")
    write_json(asked.json, {label: vars(curve) for label, curve in curves.items()})
    if asked.figure is not None:
        _draw(curves, asked.figure)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dataset", default="synthetic", help="NAME, or NAME=SOURCE")
    parser.add_argument("--epochs", type=int, default=10, help="of each network")
    parser.add_argument("--threads", type=int, help="computing threads; all cores by default")
    parser.add_argument("--data-dir", type=Path, help="the server's, kept; none by default")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--figure", type=Path, help="a file for a figure: svg, png or pdf")
    return parser.parse_args(arguments)


def _command(asked: argparse.Namespace, folder: Path, port: int) -> list[str]:
    flags = ["--data-dir", str(folder), "--port", str(port), "--metrics-port", "0"]
    if "=" in asked.dataset:
        flags += ["--dataset", asked.dataset]
    if asked.threads is not None:
        flags += ["--worker-threads", str(asked.threads)]
    return [sys.executable, "-m", "leadline.server.main", "--log-level", "warning", *flags]


def _serves(client: Client) -> bool:
    try:
        return client.health() is HealthStatus.SERVING
    except UnavailableError:
        return False


def _follow(job: TrainingJob) -> Curve:
    curve = Curve()
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
    job.result()  # a job that failed is an error
    return curve


def _report(curves: dict[str, Curve], dataset: str, epochs: int) -> str:
    accuracies = [
        [
            label,
            *(f"{100 * found[-1]:.1f} %" for found in (one.train_accuracies, one.test_accuracies)),
        ]
        for label, one in curves.items()
    ]
    parts = [
        f"{epochs} epochs on {dataset}; {machine()}.",
        table(["network", "train", "test"], accuracies),
    ]
    for heading, moment in (("Before the first step", 0), (f"After epoch {epochs}", -1)):
        for measured, values in (
            ("how far apart images are", {k: one.activation_stds for k, one in curves.items()}),
            ("gradient that comes back", {k: one.gradient_norms for k, one in curves.items()}),
        ):
            parts.append(f"{heading}: {measured}.")
            parts.append(_blocks({label: found[moment] for label, found in values.items()}))
    return "\n\n".join(parts)


def _blocks(values: dict[str, list[float]]) -> str:
    shown = [0, 1, 2, 4, 6, 8, 10]
    rows = [
        [label, *(f"{found[block]:.1e}" if block < len(found) else "" for block in shown)]
        for label, found in values.items()
    ]
    return table(["network", "head", *(f"block {block}" for block in shown[1:])], rows)


def _draw(curves: dict[str, Curve], path: Path) -> None:
    # Not every user of the benchmarks draws.
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(10, 6.5), layout="constrained")
    panels: Any = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, (moment, title) in enumerate(((0, "before the first step"), (-1, "at the end"))):
        for label, curve in curves.items():
            for row, values in enumerate((curve.activation_stds, curve.gradient_norms)):
                panels[row][column].semilogy(values[moment], marker=".", label=label)
        panels[0][column].set_title(title)
        panels[1][column].set_xlabel("block (0: the head)")
    panels[0][0].set_ylabel("how far apart images are")
    panels[1][0].set_ylabel("gradient that comes back")
    panels[0][1].legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
