"""Prints the requirements of Leadline with the given extras, one per line.

    python3 deploy/requirements.py server

The image build installs this list before it copies Leadline's sources, so a change of the sources
does not reinstall torch.
"""

# ruff: noqa: INP001 - a script

import re
import sys
import tomllib
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], extras: list[str]) -> list[str]:
    """Returns the requirements of `project`, a table of pyproject.toml, with `extras`.

    A requirement of the project itself, such as `leadline[models]`, means the extras in its
    brackets.

    Raises:
        KeyError: the project does not have an extra.
    """
    found = list(project["dependencies"])
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            own = re.fullmatch(rf"{project['name']}\[([^]]+)\]", requirement)
            found += requirements(project, own[1].split(",")) if own else [requirement]
    return sorted(set(found))


def main() -> None:
    """Prints the requirements of this checkout's pyproject.toml."""
    pyproject = Path(__file__).resolve().parent.parent / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text())["project"]
    sys.stdout.writelines(f"{line}\n" for line in requirements(project, sys.argv[1:]))


if __name__ == "__main__":
    main()
