"""Programs that tests need and Python's packages do not have."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def program(name: str, package: str) -> str:
    """The path of a program; without it the test is skipped, or fails in continuous integration.

    Args:
        name: the program.
        package: the Debian packages that have it.
    """
    return shutil.which(name) or _missing(name, f"apt-get install {package}")


def installed(path: Path, command: str) -> Path:
    """A path that `command` makes; without it the test is skipped, or fails in CI."""
    return path if path.exists() else _missing(path.name, command)


def _missing(name: str, command: str) -> NoReturn:
    missing = f"this test needs {name}; on Debian: {command}"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
