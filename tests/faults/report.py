"""The figures as a table in Markdown, and what they were taken on."""

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

from faults.setting import LONG, SEED, Figure


def table(figures: Iterable[Figure]) -> str:
    """The table, ready to be put into docs/reliability.md."""
    rows = [("bar", "required", "measured", "ok"), ("---", "---", "---", "---")]
    rows += [_row(figure) for figure in figures]
    return "".join(f"| {' | '.join(_cell(cell) for cell in row)} |\n" for row in rows)


def environment(scale: str, seconds: float) -> str:
    """Which command, on which machine, when."""
    return (
        f"\n`{_command(scale)}` (seed {SEED}, {seconds / 60:.1f} minutes), "
        f"{datetime.now(UTC):%Y-%m-%d}, on {_machine()}; "
        f"Python {platform.python_version()}, torch {torch.__version__}.\n"
    )


def _row(figure: Figure) -> tuple[str, str, str, str]:
    return figure.bar, figure.required, figure.measured, "yes" if figure.ok else "**no**"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _command(scale: str) -> str:
    return "make faults" if scale == LONG.name else f"python tests/faults/run.py --scale {scale}"


def _machine() -> str:
    models: Sequence[str] = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    load = os.getloadavg()[2]
    memory = psutil.virtual_memory().total / (1 << 30)
    return (
        f"{len(os.sched_getaffinity(0))} cores of {models[0] if models else platform.machine()}, "
        f"{memory:.0f} GiB (load average {load:.1f} over the last 15 minutes)"
    )
