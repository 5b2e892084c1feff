"""Tables of figures in Markdown, and the machine of the measurements."""

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

from leadline.models.simd.instruction_set import instruction_set


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown, ready for a page."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(map(_cell, cells))} |\n" for cells in lines)


def taken_on() -> str:
    """Returns the date, the machine and the versions."""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, on {_machine()}; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _machine() -> str:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    load = os.getloadavg()[2]
    memory = psutil.virtual_memory().total / (1 << 30)
    return (
        f"{len(os.sched_getaffinity(0))} cores of {models[0] if models else platform.machine()} "
        f"({instruction_set().value}), "
        f"{memory:.0f} GiB (load average {load:.1f} over the last 15 minutes)"
    )
