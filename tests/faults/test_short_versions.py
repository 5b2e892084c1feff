"""The short version of each scenario: asserts the bars that do not depend on the machine's
speed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.report import table
from faults.scenarios import SCENARIOS
from faults.servers import Server
from faults.setting import SHARED_FLAGS, SHORT, Figure, Setting


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Iterator[Server]:
    """A shared server for the scenarios that need no other options."""
    with Server(tmp_path_factory.mktemp("shared"), tiny_dataset, *SHARED_FLAGS) as server:
        yield server


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_lost_repeated_or_leaked(
    name: str, tmp_path: Path, tiny_dataset: Path, shared_server: Server
) -> None:
    setting = Setting(scale=SHORT, folder=tmp_path, dataset=tiny_dataset, shared=shared_server)

    figures = SCENARIOS[name](setting)

    assert figures
    assert not [figure for figure in figures if not figure.ok and not figure.is_timing]


def test_the_table_marks_a_bar_that_is_missed() -> None:
    figure = Figure(bar="a | bar", required="0 of 3", measured="1 of 3", ok=False)

    assert table([figure]).splitlines()[-1] == "| a \\| bar | 0 of 3 | 1 of 3 | **no** |"
