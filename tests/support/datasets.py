"""Dataset names for the server that tests share: one for each module, all of the same images.

A module trains on its own name, so no other sees its models. The names in `COMMON_DATASETS`
have what fixtures train for all modules, and nothing else.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from leadline.v1.training_spec_pb2 import TrainingSpec
from support.wire import tiny_spec

# `tiny` has models of one variant, `depths` has the sweep of depths.
COMMON_DATASETS = ("tiny", "depths")

_TESTS = Path(__file__).parents[1]

# The folders whose tests share a server.
_SHARING = ("client", "clients", "docs", "server")


def dataset_of(module: str | Path) -> str:
    """The name for the test module with this `__file__`, such as `server-job-control`."""
    path = Path(module).resolve().relative_to(_TESTS)
    parts = [*path.parent.parts, path.stem.removeprefix("test_")]
    return "-".join(parts).replace("_", "-")


def specs_of(module: str) -> Callable[..., TrainingSpec]:
    """`tiny_spec` for the test module with this `__file__`, on the module's own dataset name."""
    return partial(tiny_spec, dataset=dataset_of(module))


def module_datasets() -> list[str]:
    """The names of all modules that share a server."""
    paths = (path for name in _SHARING for path in sorted((_TESTS / name).rglob("test_*.py")))
    return [dataset_of(path) for path in paths]
