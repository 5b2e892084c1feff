"""Where the benchmarks keep what takes long to make: peers' environments, trained models."""

import os
from pathlib import Path

CACHE_VARIABLE = "LEADLINE_BENCHMARKS_CACHE"


def cache_folder() -> Path:
    """The folder, which exists from now on."""
    usual = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get(CACHE_VARIABLE) or Path(usual) / "leadline-benchmarks")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
