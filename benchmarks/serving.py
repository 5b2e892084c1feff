"""`make bench-serving`: compares Leadline with Triton and MLServer, and measures overload.

The network has 10 blocks of 2 convolutions with batch norm. For overload it has 64 blocks with
residual connections.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness import (
    beside_training,
    comparison_report,
    engine,
    overload,
    serving_processes,
)
from harness.checks import WrongAnswerError
from harness.comparison import SERVERS, Plan, Point, compare
from harness.h2load import LoadError, require_h2load
from harness.models import trained_model
from harness.processes import ServerError
from harness.servers import PeerMissingError
from harness.tables import machine, say, write_json

_BLOCKS = 10
_FAILURES = (LoadError, PeerMissingError, ServerError, TimeoutError, WrongAnswerError)

# The result of a mode: a table to print, and all figures for the JSON file.
Result = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Mode:
    """A kind of measurement."""

    run: Callable[[argparse.Namespace], Result]
    seconds: float
    """The default duration of each measurement."""


def main(arguments: Sequence[str]) -> int:
    """Runs a mode; returns 0, or 1 if the measurement failed, or 130 if it was stopped."""
    options = _parser().parse_args(arguments)
    mode: Mode = options.mode
    options.seconds = options.seconds or mode.seconds
    torch.set_num_threads(1)
    # SIGTERM must stop the servers too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        text, figures = mode.run(options)
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except _FAILURES as error:
        say(f"{type(error).__name__}: {error}")
        return 1
    sys.stdout.write(f"{text}\n{machine()}\n")
    write_json(options.json, figures)
    return 0


def _compare(options: argparse.Namespace) -> Result:
    require_h2load()
    for name in options.servers:
        SERVERS[name].check_installed()
    figures = compare(_plan(options), trained_model(blocks=_BLOCKS))
    return comparison_report.report(figures), comparison_report.as_json(figures)


def _engine(options: argparse.Namespace) -> Result:
    require_h2load()
    figures = engine.measure_engine(trained_model(blocks=_BLOCKS), _plan(options))
    return engine.report(figures), engine.as_json(figures)


def _beside_training(options: argparse.Namespace) -> Result:
    trained = trained_model(blocks=_BLOCKS)
    measured = beside_training.measure(trained, rounds=options.rounds, seconds=options.seconds)
    return beside_training.report(measured), beside_training.as_json(measured)


def _overload(options: argparse.Namespace) -> Result:
    trained = trained_model(blocks=overload.BLOCKS, epochs=1, residual=True)
    measured = overload.measure(trained, seconds=options.seconds)
    return overload.report(measured), overload.as_json(measured)


def _processes(options: argparse.Namespace) -> Result:
    require_h2load()
    costs = serving_processes.measure(trained_model(blocks=_BLOCKS), _plan(options))
    return serving_processes.report(costs), serving_processes.as_json(costs)


def _plan(options: argparse.Namespace) -> Plan:
    points = []
    for batch in options.batches:
        many = options.in_flight if batch == 1 else options.batch_in_flight
        points += [Point(batch, in_flight) for in_flight in many]
    return Plan(
        servers=options.servers,
        points=points,
        rounds=options.rounds,
        seconds=options.seconds,
        warm_up_seconds=options.warm_up_seconds,
        connections=options.connections,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/serving.py", description=__doc__)
    modes = parser.add_mutually_exclusive_group()
    for flag, mode, text in _MODES:
        modes.add_argument(flag, dest="mode", action="store_const", const=mode, help=text)
    parser.set_defaults(mode=Mode(_compare, 5))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to it")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of all measurements (5)")
    parser.add_argument(
        "--seconds",
        type=float,
        help="duration of a measurement (5; 30 beside training; 60 for overload)",
    )
    parser.add_argument(
        "--warm-up-seconds", type=float, default=1.0, help="warm-up of a measurement (1)"
    )
    parser.add_argument(
        "--servers", type=_names, default=list(SERVERS), help=f"some of {','.join(SERVERS)} (all)"
    )
    parser.add_argument(
        "--batches", type=_numbers, default=[1, 32, 256], help="images per request (1,32,256)"
    )
    parser.add_argument(
        "--in-flight",
        type=_numbers,
        default=[1, 8, 32, 128],
        help="requests of one image in flight (1,8,32,128)",
    )
    parser.add_argument(
        "--batch-in-flight",
        type=_numbers,
        default=[4],
        help="requests of several images in flight (4)",
    )
    parser.add_argument(
        "--connections", type=int, default=4, help="at most this many connections (4)"
    )
    return parser


_MODES = (
    ("--engine", Mode(_engine, 5), "the engine in process, and the cost of the wire"),
    ("--beside-training", Mode(_beside_training, 30), "latency with and without a training job"),
    ("--processes", Mode(_processes, 5), "two serving processes on two cores against one on one"),
    ("--overload", Mode(_overload, 60), "ten times the server's capacity"),
)


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if any(number < 1 for number in numbers):
        raise argparse.ArgumentTypeError("each must be at least 1")
    return numbers


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(SERVERS):
        raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}")
    return names


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
