"""Prints what Leadline with the extras named needs, a requirement a line.

    python3 deploy/requirements.py server

The image's dependencies are installed from this list before Leadline's sources
are copied, so that a change of the sources does not install torch again.
"""

# ruff: noqa: INP001 - a script

import re
import sys
import tomllib
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], extras: list[str]) -> list[str]:
    """The requirements of `project`, the table of pyproject.toml, with `extras`.

    An extra that names the project itself, such as `leadline[models]`, stands
    for the extras in its brackets.

    Raises:
        KeyError: the project has no such extra.
    """
    found = list(project["dependencies"])
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            own = re.fullmatch(rf"{project['name']}\[([^]]+)\]", requirement)
            found += requirements(project, own[1].split(",")) if own else [requirement]
    return sorted(set(found))


def main() -> None:
    """Reads the pyproject.toml of this checkout."""
    pyproject = Path(__file__).resolve().parent.parent / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text())["project"]
    sys.stdout.writelines(f"{line}\n" for line in requirements(project, sys.argv[1:]))


if __name__ == "__main__":
    main()
