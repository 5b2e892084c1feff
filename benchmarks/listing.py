"""Measures the latency of listings of wrong images, and how much they slow training.

    python benchmarks/listing.py /path/of/cifar10.tar

A job trains. During half of its epochs, a client lists 20 PNG images of the latest epoch at a
constant rate. The epochs alternate in pairs: off, on, on, off. After the job, the client lists
while nothing trains.
"""

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.epochs import Service, service
from harness.stats import percentile
from harness.tables import machine, say, table, write_json
from leadline.client import Client

_IMAGES = 20
_IDLE_LISTINGS = 200

# The epochs with listings. Adjacent epochs form a pair. The order cancels a steady drift of the
# machine's speed.
_ASKED = (False, True, True, False)


@dataclass
class Figures:
    """The measurements: seconds per epoch, in pairs, and milliseconds per listing."""

    alone: list[float] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)


class Asker:
    """Lists wrong images until it is stopped."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.model = ""
        self.is_on = False

    def ask(self) -> float:
        """Lists 20 images of the epoch `model`, and returns the latency in milliseconds.

        Raises:
            ValueError: the listing has another number of images.
        """
        began = time.perf_counter()
        listed = self._client.list_misclassified(
            model=self.model, grouping="none", page_size=_IMAGES
        )
        milliseconds = 1e3 * (time.perf_counter() - began)
        if len(listed.examples) != _IMAGES or not all(example.png for example in listed.examples):
            raise ValueError(f"{len(listed.examples)} images of {self.model}")
        return milliseconds

    @contextmanager
    def asking(self, per_second: float, into: list[float]) -> Iterator[None]:
        """Lists at a constant rate within the context, while it is on."""
        done = threading.Event()

        def run() -> None:
            while not done.wait(1 / per_second):
                if self.is_on:
                    into.append(self.ask())

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def main(arguments: Sequence[str]) -> int:
    """Measures and prints a table."""
    options = _parser().parse_args(arguments)
    figures = Figures()
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder, "data"), options.dataset) as leadline,
    ):
        asker = Asker(leadline.client)
        with asker.asking(options.per_second, figures.beside):
            _train(leadline, asker, options, figures)
        figures.idle = [asker.ask() for _ in range(_IDLE_LISTINGS)]
    sys.stdout.write(_report(figures, options))
    write_json(options.json, vars(figures))
    return 0


def _train(leadline: Service, asker: Asker, options: argparse.Namespace, figures: Figures) -> None:
    """Trains the job, and leaves out its first epoch."""
    job = leadline.client.train(
        dataset="measured",
        blocks=options.blocks,
        batch_norm=options.batch_norm,
        epochs=2 * options.pairs + 1,
    )
    asked = itertools.cycle(_ASKED)
    began = 0.0
    for event in job.events():
        if not event.HasField("epoch"):
            continue
        ended = event.create_time.ToNanoseconds() / 1e9
        if began:
            (figures.asked if asker.is_on else figures.alone).append(ended - began)
            say(f"{'asked' if asker.is_on else 'alone'}: {ended - began:.2f} s")
        began, asker.model = ended, event.epoch.model
        asker.is_on = next(asked) and event.epoch.epoch <= 2 * options.pairs
    asker.is_on = False


def _report(figures: Figures, options: argparse.Namespace) -> str:
    ratios = [one / other for one, other in zip(figures.asked, figures.alone, strict=True)]
    rows = [
        ["an epoch, nobody asks", *_quartiles(figures.alone, "s", 2)],
        ["an epoch, asked", *_quartiles(figures.asked, "s", 2)],
        ["asked / not, pair by pair", *_quartiles(ratios, "", 3)],
        ["a listing while it trains", *_quartiles(figures.beside, "ms", 1)],
        ["a listing while nothing trains", *_quartiles(figures.idle, "ms", 1)],
    ]
    return (
        f"{table(('what', 'least', 'median', 'half of all are within'), rows)}\n"
        f"{options.pairs} pairs of epochs; {len(figures.beside)} listings of {_IMAGES} images, "
        f"{options.per_second:g} a second, timed by the client; {options.blocks} blocks, "
        f"{'with' if options.batch_norm else 'without'} batch norm\n{machine()}\n"
    )


def _quartiles(values: Sequence[float], unit: str, digits: int) -> list[str]:
    samples = np.array(values)
    least = f"{min(values):.{digits}f} {unit}".rstrip()
    low, middle, high = (f"{percentile(samples, part):.{digits}f}" for part in (25, 50, 75))
    return [least, f"{middle} {unit}".rstrip(), f"{low} to {high}"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/listing.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", help="a folder or tar of images, or synthetic")
    parser.add_argument("--blocks", type=int, default=2, help="the depth (2)")
    parser.add_argument(
        "--batch-norm", action=argparse.BooleanOptionalAction, default=True, help="batch norm (on)"
    )
    parser.add_argument("--pairs", type=int, default=20, help="pairs of epochs (20)")
    parser.add_argument("--per-second", type=float, default=1.0, help="listings per second (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to it")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
