"""Servers by transport, and a folder like a checkout for other clients."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.tools import NODE_MODULES, PROGRAMS, ROOT
from docs.pages import DOCS, blocks_under
from support.servers import LiveServer, start_server

TRANSPORTS = ("h2corn", "grpcio")


@pytest.fixture(scope="session", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """The transport, as in `tests/conftest.py`, for servers that several tests share."""
    return str(request.param)


@pytest.fixture(scope="session")
def grpcio_server(
    tmp_path_factory: pytest.TempPathFactory, shared_datasets: list[str]
) -> Iterator[LiveServer]:
    """A server like `live_server`, over grpcio."""
    folder = tmp_path_factory.mktemp("grpcio")
    server = start_server(folder, *shared_datasets, "--transport", "grpcio")
    yield server
    assert server.stop() == 0, server.log.read_text()


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, transport: str) -> LiveServer:
    """A server for all tests of this folder."""
    name = "live_server" if transport == "h2corn" else "grpcio_server"
    server: LiveServer = request.getfixturevalue(name)
    return server


class Workplace:
    """A folder with `protos`, like that of a reader of `docs/clients.md`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "protos").symlink_to(ROOT / "protos")
        (folder / "node_modules").symlink_to(NODE_MODULES)
        self._environment = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}

    def generate(self, heading: str) -> None:
        """Runs the command of a section that generates stubs."""
        (command,) = blocks_under(DOCS / "clients.md", heading, "sh")
        self.run("sh", "-ec", command)

    def run(self, *command: str, **variables: str) -> str:
        """Runs a command that must succeed; returns its output."""
        status, output, errors = self.try_to_run(*command, **variables)
        assert status == 0, output + errors
        return output

    def try_to_run(self, *command: str, **variables: str) -> tuple[int, str, str]:
        """Runs a command; returns its exit status, its output and its errors."""
        process = subprocess.run(
            command,
            check=False,
            cwd=self.folder,
            env=self._environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return process.returncode, process.stdout, process.stderr

    def run_python(self, *arguments: str) -> str:
        """Runs Python with its packages, but without Leadline."""
        path = f"{self.folder}:{sysconfig.get_path('purelib')}"
        return self.run(sys.executable, "-S", "-W", "error", *arguments, PYTHONPATH=path)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A folder for all tests, because the stubs of several languages do not conflict."""
    return Workplace(tmp_path_factory.mktemp("clients"))
