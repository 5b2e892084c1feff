"""Measures the time of an epoch: the notebook's loop against Leadline's worker, alternating.

    python benchmarks/training.py /path/of/cifar10.tar

Each round trains one epoch with the notebook's loop, and three with a job on a server with default
options; the first of these does not count. Both train blocks of one convolution. The notebook's
loop also computes a second one per block, and discards its result. Both use a GPU if there is one.

    python benchmarks/training.py cifar10.tar --convolutions 2 --threads 1,2

`--threads` instead compares numbers of threads, on the CPU, in this process, without checkpoints.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from harness.arithmetic import (
    attainable_operations,
    best_device,
    device_name,
    epoch_operations,
)
from harness.cache import cache_folder
from harness.epochs import Epoch, notebook, rounds, service
from harness.stats import Spread
from harness.tables import machine, table, write_json
from harness.threads import report_threads
from leadline.models.architecture import Architecture
from leadline.models.datasets import Dataset, open_dataset
from leadline.models.spec import TrainingSpec


def main(arguments: Sequence[str]) -> int:
    """Measures and prints a table."""
    options = _parser().parse_args(arguments)
    cache = cache_folder() / "datasets"
    dataset = open_dataset(options.dataset, cache)
    variant = {"blocks": options.blocks, "batch_norm": options.batch_norm}
    if options.threads:
        spec = TrainingSpec(
            **variant, block_convolutions=options.convolutions, epochs=options.rounds + 1
        )
        threads = [int(number) for number in options.threads.split(",")]
        sys.stdout.write(report_threads(dataset, spec, threads, options.rounds) + machine() + "\n")
        return 0
    network = {**variant, "block_convolutions": 1}
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder, "data"), options.dataset) as leadline,
        notebook(cache, dataset.fingerprint, **variant) as loop,
    ):
        leadline.epochs(1, dataset="measured", **network)  # decodes the dataset
        results = rounds(
            [
                ("notebook", lambda: [loop.epoch()]),
                ("leadline", lambda: leadline.epochs(2, dataset="measured", **network)),
            ],
            options.rounds,
        )
    sys.stdout.write(_report(results, dataset, Architecture(**network)))
    write_json(
        options.json,
        {name: [asdict(epoch) for epoch in epochs] for name, epochs in results.items()},
    )
    return 0


def _report(results: dict[str, list[Epoch]], dataset: Dataset, architecture: Architecture) -> str:
    train, test = len(dataset.train.labels), len(dataset.test.labels)
    device = best_device()
    work = epoch_operations(architecture, train_images=train, test_images=test)
    attainable = attainable_operations(device)
    rows = []
    for name, epochs in results.items():
        seconds = Spread.of([epoch.seconds for epoch in epochs])
        rows.append(
            [
                name,
                seconds.text(2),
                f"{train / seconds.median:,.0f}",
                f"{work / seconds.median / attainable:.1%}",
                f"{max(epoch.peak_memory for epoch in epochs) / 2**20:,.0f}"
                if name == "leadline"
                else "",
            ]
        )
    heads = ("loop", "s an epoch", "training images/s", "of the arithmetic", "peak memory MiB")
    halves = [epochs[::2] for epochs in (results["leadline"], results["leadline"][1:])]
    ratio = Spread.of_ratios(
        [epoch.seconds for epoch in results["notebook"]],
        [(one.seconds + other.seconds) / 2 for one, other in zip(*halves, strict=True)],
    )
    return (
        f"{table(heads, rows)}\nnotebook / leadline: {ratio.text(2)}\n"
        f"{architecture.blocks} blocks of one convolution, "
        f"{'with' if architecture.batch_norm else 'without'} batch norm; "
        f"{work / 1e12:.2f} x 10^12 operations an epoch, {attainable / 1e9:,.0f} x 10^9 a "
        f"second attainable on the {device_name(device)}\n{machine()}\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/training.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", help="a folder or tar of images, or synthetic")
    parser.add_argument("--blocks", type=int, default=10, help="the depth (10)")
    parser.add_argument(
        "--batch-norm", action=argparse.BooleanOptionalAction, default=True, help="batch norm (on)"
    )
    parser.add_argument("--threads", metavar="N,N", help="compare these numbers of threads")
    parser.add_argument(
        "--convolutions", type=int, choices=(1, 2), default=1, help="per block, with --threads (1)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of both loops (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to it")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
