"""Programs that tests need, from outside Python packages."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def program(name: str, package: str) -> str:
    """Returns the path of a program, or skips the test, or fails it in continuous integration.

    Args:
        name: the name of the program.
        package: the Debian packages with the program.
    """
    return shutil.which(name) or _missing(name, f"apt-get install {package}")


def installed(path: Path, command: str) -> Path:
    """Returns a path that `command` creates, or skips the test, or fails it in CI."""
    return path if path.exists() else _missing(path.name, command)


def _missing(name: str, command: str) -> NoReturn:
    missing = f"this test needs {name}; on Debian: {command}"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
