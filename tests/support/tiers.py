"""The tiers of tests, the order of files, and a guard against servers in unit tests."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]

# The fixtures that start servers. A test that depends on one is a system test.
SERVER_FIXTURES = frozenset({"live_server", "busy_server", "server_factory"})

# Folders whose tests start a browser, a client, a build, or another kind of server.
SYSTEM_FOLDERS = frozenset({"browser", "clients", "faults", "hostile", "packaging"})

# The slowest files, the slowest first, so that all processes finish at about the same time.
LONGEST_FILES = (
    "hostile/test_attacks.py",
    "faults/test_short_versions.py",
    "server/test_serve.py",
    "clients/test_page.py",
    "clients/test_access.py",
    "server/services/test_job_control.py",
    "server/api/test_sweep_service.py",
    "server/scheduling/test_node_limits.py",
    "client/test_cli.py",
    "client/test_cli_plot_sweep.py",
    "client/test_reconnect.py",
    "client/test_predict_stream.py",
    "browser/test_live_page.py",
    "server/api/test_comparisons.py",
    "browser/test_report.py",
    "clients/test_errors.py",
    "clients/test_interop.py",
    "docs/test_snippets.py",
    "server/test_tls_rotation.py",
    "client/test_demo.py",
    "packaging/test_wheel.py",
    "server/services/test_training_options.py",
    "server/api/test_training_service.py",
    "server/api/test_predict_stream.py",
    "server/storage/test_sweep_store.py",
    "models/test_simd.py",
    "client/test_streams.py",
    "server/doctor/test_doctor.py",
    "models/test_checkpoints.py",
    "models/test_simd_inference.py",
    "client/test_bulk_faults.py",
    "models/test_synthetic.py",
    "client/test_client.py",
    "server/live/test_broadcast.py",
)

# Strings in the command of a process that is a server or starts one.
_SERVER_COMMANDS = (
    "leadline.server.main",
    "faults.counted_server",
    "leadline.client.cli serve",
    "leadline.client.cli demo",
)


def mark_system_tests(items: Sequence[pytest.Item]) -> None:
    """Marks the tests that need a server, a browser or a build."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if folder_of(item) in SYSTEM_FOLDERS or fixtures & SERVER_FIXTURES:
            item.add_marker(pytest.mark.system)


def put_longest_files_first(items: list[pytest.Item]) -> None:
    """Sorts the tests by file, and keeps their order within a file."""
    places = {name: place for place, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: places.get(_path_of(item), len(places)))


def folder_of(item: pytest.Item) -> str:
    """Returns the folder of a test below `tests`."""
    return _path_of(item).partition("/")[0]


def _path_of(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).as_posix()


class ServerStarts:
    """Counts the servers that this process starts."""

    def __init__(self) -> None:
        self._commands: list[str] = []
        sys.addaudithook(self._note)

    @contextmanager
    def none_unless(self, *, allowed: bool) -> Iterator[None]:
        """Fails if a server starts within the context without permission."""
        before = len(self._commands)
        yield
        started = self._commands[before:]
        if started and not allowed:
            pytest.fail(f"it starts a server, so it must be marked as `system`: {started[0]}")

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            command = " ".join(str(word) for word in arguments[1])
            if any(words in command for words in _SERVER_COMMANDS):
                self._commands.append(command)
