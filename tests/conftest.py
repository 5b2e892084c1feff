"""Fixtures for all tests."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.datasets import COMMON_DATASETS, dataset_of, module_datasets
from support.servers import (
    TO_BE_OCCUPIED,
    LiveServer,
    ServerFactory,
    make_dataset,
    occupied,
    start_server,
)
from support.tiers import ServerStarts, mark_system_tests, put_longest_files_first

_SERVER_STARTS = ServerStarts()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs before `-m` selects tests."""
    mark_system_tests(items)
    put_longest_files_first(items)


@pytest.fixture(autouse=True)
def _unit_tests_start_no_server(request: pytest.FixtureRequest) -> Iterator[None]:
    marked = request.node.get_closest_marker("system") is not None
    with _SERVER_STARTS.none_unless(allowed=marked):
        yield


@pytest.fixture(params=["h2corn", "grpcio"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each transport, for tests that must pass on both."""
    return str(request.param)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes, 400 train and 200 test images."""
    return make_dataset(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="session")
def shared_datasets(tiny_dataset: Path) -> list[str]:
    """The options for all dataset names of a server that modules share."""
    return [f"--dataset={name}={tiny_dataset}" for name in (*COMMON_DATASETS, *module_datasets())]


@pytest.fixture(scope="session")
def live_server(
    tmp_path_factory: pytest.TempPathFactory, shared_datasets: list[str]
) -> Iterator[LiveServer]:
    """A server for all tests."""
    server = start_server(tmp_path_factory.mktemp("server"), *shared_datasets)
    yield server
    assert server.stop() == 0, server.log.read_text()


@pytest.fixture(scope="session")
def busy_server(
    tmp_path_factory: pytest.TempPathFactory, shared_datasets: list[str]
) -> Iterator[LiveServer]:
    """A server whose only device is busy, so submitted jobs wait."""
    server = start_server(tmp_path_factory.mktemp("busy"), *shared_datasets, *TO_BE_OCCUPIED)
    with occupied(server):
        yield server
    assert server.stop() == 0, server.log.read_text()


@pytest.fixture
def server_factory(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_dataset: Path
) -> Iterator[ServerFactory]:
    """Starts servers for one test, all in one folder, and stops them.

    They have the datasets `tiny` and the module's own.
    """
    servers: list[LiveServer] = []
    names = ("tiny", dataset_of(request.path))
    datasets = [f"--dataset={name}={tiny_dataset}" for name in names]

    def start(*flags: str, folder: str = "server", **options: Any) -> LiveServer:
        server = start_server(tmp_path / folder, *datasets, *flags, **options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        with contextlib.suppress(ProcessLookupError):
            server.process.kill()
        server.process.wait(timeout=30)
