"""Runs scenarios one after another with progress, and prints the table of figures."""

import argparse
import json
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from faults.report import environment, table
from faults.scenarios import SCENARIOS
from faults.setting import LONG, SCALES, SEED, Figure, Setting
from support.servers import make_dataset

_LONGEST_SECONDS = 1_800


class ScenarioTooLongError(Exception):
    """A scenario exceeded its time limit."""


@dataclass(frozen=True)
class Outcome:
    """The result of one scenario."""

    scenario: str
    seconds: float
    figures: list[Figure]


def main(arguments: Sequence[str]) -> int:
    """Runs the selected scenarios; returns 0 if every bar is met, otherwise 1."""
    options = _parse(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    names = options.only or list(SCENARIOS)
    _say(f"{len(names)} scenarios, {options.scale} scale, seed {SEED}")
    try:
        outcomes = _run_all(names, options.scale)
    except KeyboardInterrupt:
        _say("interrupted: everything was ended and removed")
        return 130
    sys.stdout.write(table([figure for outcome in outcomes for figure in outcome.figures]))
    sys.stdout.write(environment(options.scale, sum(outcome.seconds for outcome in outcomes)))
    if options.json:
        options.json.write_text(
            json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n"
        )
    return 0 if all(figure.ok for outcome in outcomes for figure in outcome.figures) else 1


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/faults/run.py", description=__doc__)
    parser.add_argument("--scale", choices=list(SCALES), default=LONG.name)
    parser.add_argument(
        "--only",
        choices=list(SCENARIOS),
        action="append",
        metavar="NAME",
        help=f"a scenario to run, again for more: {', '.join(SCENARIOS)}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to it")
    return parser.parse_args(arguments)


def _run_all(names: Sequence[str], scale: str) -> list[Outcome]:
    with tempfile.TemporaryDirectory(prefix="leadline-faults-") as folder:
        dataset = make_dataset(Path(folder) / "tiny")
        return [_run(name, Path(folder) / name, dataset, scale) for name in names]


def _run(name: str, folder: Path, dataset: Path, scale: str) -> Outcome:
    began = time.monotonic()

    def say(text: str) -> None:
        _say(f"{name:>16} {time.monotonic() - began:5.0f} s  {text}")

    setting = Setting(scale=SCALES[scale], folder=folder, dataset=dataset, say=say)
    say("begins")
    try:
        with _time_limit(_LONGEST_SECONDS):
            figures = SCENARIOS[name](setting)
    except Exception as error:  # noqa: BLE001 - the other scenarios still run
        traceback.print_exc()
        what = f"{type(error).__name__}: {error}"[:300]
        figures = [Figure(bar=name, required="runs", measured=what, ok=False)]
    for figure in figures:
        say(f"{'ok  ' if figure.ok else 'MISS'}  {figure.bar}: {figure.measured}")
    return Outcome(name, time.monotonic() - began, figures)


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def give_up(_number: int, _frame: FrameType | None) -> NoReturn:
        raise ScenarioTooLongError(f"it took more than {seconds} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
