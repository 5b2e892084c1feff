"""Tables in Markdown, and the machine of the measurements."""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table with aligned columns, ready for the documentation."""
    cells = [list(heads), *([*row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(row, widths) for row in cells]
    lines.insert(1, _line(["-" * width for width in widths], widths))
    return "\n".join(lines) + "\n"


def machine() -> str:
    """Returns a description of the machine and its load."""
    memory = psutil.virtual_memory().total / (1 << 30)
    return (
        f"{os.cpu_count()} cores of {_processor()}, {memory:.0f} GiB, "
        f"load average {os.getloadavg()[0]:.1f} in the last minute"
    )


def environment() -> dict[str, Any]:
    """Returns the date, the machine and the versions of a measurement."""
    names = ("leadline", "grpcio", "numpy", "onnxruntime", "torch")
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": machine(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in names},
    }


def say(text: str) -> None:
    """Prints progress to standard error; figures go to standard output."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def write_json(path: Path | None, figures: dict[str, Any]) -> None:
    """Writes the figures and their environment to the file, if there is one."""
    if path is not None:
        record = {"environment": environment(), **figures}
        path.write_text(json.dumps(record, indent=1) + "\n")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
