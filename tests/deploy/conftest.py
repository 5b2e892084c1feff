"""Fixtures for the tests of the container."""

from pathlib import Path

import pytest

from deploy.dockerfile import Stage, parse_stages


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def stages(repository: Path) -> dict[str, Stage]:
    """The stages of the Dockerfile by name, in order."""
    return parse_stages((repository / "Dockerfile").read_text())


@pytest.fixture(scope="session")
def image(stages: dict[str, Stage]) -> Stage:
    """The last stage, which is the image."""
    return list(stages.values())[-1]
