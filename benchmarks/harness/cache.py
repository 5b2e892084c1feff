"""The cache of the benchmarks: environments of the peers, and trained models."""

import os
from pathlib import Path

CACHE_VARIABLE = "LEADLINE_BENCHMARKS_CACHE"


def cache_folder() -> Path:
    """Returns the cache folder, and creates it if it does not exist."""
    usual = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get(CACHE_VARIABLE) or Path(usual) / "leadline-benchmarks")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
