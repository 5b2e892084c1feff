"""Dataset names for the shared server: one per module, all with the same images.

A module trains on its own name, so other modules do not see its models. Only fixtures for all
modules train on the names in `COMMON_DATASETS`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from leadline.v1.training_spec_pb2 import TrainingSpec
from support.wire import tiny_spec

# `tiny` has models of one variant, and `depths` has the sweep of depths.
COMMON_DATASETS = ("tiny", "depths")

_TESTS = Path(__file__).parents[1]

# The folders with tests on the shared server.
_SHARING = ("client", "clients", "docs", "server")


def dataset_of(module: str | Path) -> str:
    """Returns the name for the test module with this `__file__`, such as `server-job-control`."""
    path = Path(module).resolve().relative_to(_TESTS)
    parts = [*path.parent.parts, path.stem.removeprefix("test_")]
    return "-".join(parts).replace("_", "-")


def specs_of(module: str) -> Callable[..., TrainingSpec]:
    """Returns `tiny_spec` with the dataset name of the test module with this `__file__`."""
    return partial(tiny_spec, dataset=dataset_of(module))


def module_datasets() -> list[str]:
    """Returns the names of all modules on the shared server."""
    paths = (path for name in _SHARING for path in sorted((_TESTS / name).rglob("test_*.py")))
    return [dataset_of(path) for path in paths]
