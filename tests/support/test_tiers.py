"""The tiers: an unmarked test that starts a server fails, and all listed files exist."""

import subprocess
import sys

import pytest

from support.datasets import module_datasets
from support.servers import LiveServer
from support.tiers import LONGEST_FILES, TESTS, ServerStarts

# A command like a server's that exits at once.
COMMAND = (sys.executable, "-c", "pass", "-m", "leadline.server.main")


@pytest.mark.system
def test_a_test_that_starts_a_server_fails_unless_it_is_marked() -> None:
    starts = ServerStarts()

    with starts.none_unless(allowed=True):
        subprocess.run(COMMAND, check=True)
    with (
        pytest.raises(pytest.fail.Exception, match="must be marked as `system`"),
        starts.none_unless(allowed=False),
    ):
        subprocess.run(COMMAND, check=True)


def test_other_processes_may_be_started() -> None:
    with ServerStarts().none_unless(allowed=False):
        subprocess.run([sys.executable, "-c", "pass"], check=True)


def test_the_files_that_come_first_exist() -> None:
    assert [name for name in LONGEST_FILES if not (TESTS / name).is_file()] == []


def test_each_module_has_a_dataset_name_of_its_own() -> None:
    names = module_datasets()

    assert len(names) == len(set(names))
    assert "tiny" not in names


def test_a_test_that_uses_a_server_is_marked(
    request: pytest.FixtureRequest, live_server: LiveServer
) -> None:
    assert live_server.process.poll() is None
    assert request.node.get_closest_marker("system")


def test_a_test_that_uses_none_is_not(request: pytest.FixtureRequest) -> None:
    assert not request.node.get_closest_marker("system")
