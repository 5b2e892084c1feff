"""The tables of the pages are complete and correct."""

import re
import tomllib
import urllib.request
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from docs.command_line import TAKE_SETTINGS, flags_of, leaf_commands, resolve
from docs.pages import DOCS, ROOT, rows, section
from leadline.client._config import SETTINGS
from leadline.client.cli.exit_codes import ExitCode
from leadline.models.spec import TrainingSpec
from leadline.server.api.errors import _STATUS_OF
from leadline.server.jobs.states import MOVES
from leadline.server.serving.classifier import MAX_BATCH
from leadline.server.settings import ENVIRONMENT_PREFIX, Settings
from leadline.server.storage.sqlite_errors import _ERRORS
from leadline.server.sweeps.sweep import MEDIAN_STOPPED
from leadline.server.workers.messages import _KINDS
from support.servers import LiveServer

OPERATIONS = DOCS / "operations.md"

# Reasons within the service, which callers never receive.
INTERNAL_REASONS = {"WORKER_FENCED_OFF", "EPOCH_OUT_OF_ORDER", "EPOCH_NOT_REPEATABLE"}

COMMON_FLAGS = {"--profile", "--timeout", "--json", "--help", "-h"}.union(
    *([f"--{name.replace('_', '-')}", f"--no-{name.replace('_', '-')}"] for name in SETTINGS)
)


def code(text: str) -> str:
    """Returns the text between backticks."""
    return text.strip("`")


def shown(default: Any) -> str:
    if default in (None, {}, ""):
        return "none"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def test_every_option_of_the_server_stands_in_operations_with_its_default() -> None:
    table = [row[:4] for row in rows(section(OPERATIONS, "Options"))[1:]]

    assert table == [
        [
            f"`--{name.replace('_', '-') if name != 'datasets' else 'dataset'}`",
            f"`{ENVIRONMENT_PREFIX}{name.upper()}`",
            f"`{name}`",
            shown(field.default),
        ]
        for name, field in Settings.model_fields.items()
    ]


def test_every_metric_stands_in_operations_and_every_one_there_is_served(
    live_server: LiveServer,
) -> None:
    with urllib.request.urlopen(live_server.metrics_url, timeout=10) as response:  # noqa: S310
        families = list(text_string_to_metric_families(response.read().decode()))
    served = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in families
        if family.name.startswith(("leadline_", "grpc_server_"))
    }

    documented = {code(row[0]): row[1] for row in rows(section(OPERATIONS, "Metrics"))[1:]}

    assert documented == served


@pytest.mark.parametrize("words", list(leaf_commands()), ids=" ".join)
def test_every_option_of_a_command_stands_in_its_section(words: tuple[str, ...]) -> None:
    text = section(DOCS / "cli.md", f"`leadline {' '.join(words)}`")
    command, _ = resolve(words)
    named = set(re.findall(r"--[a-z][a-z-]*", text))

    if words[0] in TAKE_SETTINGS:
        assert named <= flags_of(command)
    else:
        assert flags_of(command) - COMMON_FLAGS <= named <= flags_of(command)


def test_the_exit_codes_are_those_of_the_program() -> None:
    table = {row[0]: row[1] for row in rows(section(DOCS / "cli.md", "Exit codes"))[1:]}

    assert table == {str(int(code)): code.meaning for code in ExitCode}


def test_every_reason_that_callers_are_told_stands_in_the_contract() -> None:
    server = ROOT / "server"
    sources = "".join(path.read_text() for path in sorted(server.rglob("*.py")))
    used = set(re.findall(r'reason(?:: str)? ?= ?"([A-Z_]+)"', sources)) - INTERNAL_REASONS
    used |= {f"{kind.upper()}_NOT_FOUND" for kind in ("job", "sweep", "model", "epoch", "variant")}
    used |= {reason for _, reason, _ in _ERRORS} | {MEDIAN_STOPPED}

    cells = [row[1] for row in rows(section(DOCS / "api.md", "Errors"))[1:]]
    for heading in ("Failures of jobs", "Held jobs", "Pauses", "Cancellations"):
        cells += [row[0] for row in rows(section(DOCS / "api.md", heading))[1:]]

    assert set(re.findall(r"`([A-Z_]+)`", " ".join(cells))) == used


def test_the_log_events_that_the_pages_quote_are_logged() -> None:
    text = "".join((DOCS / page).read_text() for page in ("operations.md", "reliability.md"))
    quoted = set(re.findall(r"(?:event|warning),?\s+`([^`]+)`", text))
    sources = "".join(path.read_text() for path in (ROOT / "server").rglob("*.py"))
    sources += "".join(path.read_text() for path in (ROOT / "models").rglob("*.py"))

    assert len(quoted) >= 3
    assert {event for event in quoted if f'"{" ".join(event.split())}' not in sources} == set()


def test_every_error_of_the_domain_stands_in_the_architecture_with_its_status() -> None:
    table = rows(section(DOCS / "architecture.md", "Errors"))[1:]

    assert {code(row[0]): code(row[1]) for row in table} == {
        error.__name__: status.name for error, (status, _) in _STATUS_OF.items()
    }


def test_the_architecture_states_the_batch_size() -> None:
    stated = re.findall(
        r"A batch has at most\s(\d+)\simages", (DOCS / "architecture.md").read_text()
    )

    assert stated == [str(MAX_BATCH)]


def test_the_states_and_their_moves_stand_in_the_architecture() -> None:
    table = rows(section(DOCS / "architecture.md", "The life of a job"))[1:]

    assert {row[0]: set(row[2].split(", ")) - {"nothing"} for row in table} == {
        state.value: {target.value for target in targets} for state, targets in MOVES.items()
    }


def test_every_message_of_a_worker_stands_in_the_architecture() -> None:
    table = rows(section(DOCS / "architecture.md", "Messages between server and worker"))[1:]

    assert {code(row[0]) for row in table} == set(_KINDS)


def test_the_defaults_of_a_spec_are_those_of_the_program() -> None:
    table = rows(section(DOCS / "api.md", "What to train"))[1:]
    stated = {
        code(row[0]): code(row[1]).removeprefix(f"{code(row[0]).upper()}_").lower() for row in table
    }

    spec = TrainingSpec().to_dict()

    assert set(stated) == set(spec)
    for field, value in spec.items():
        assert stated[field] == str(value).lower() or float(stated[field]) == value


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = {re.split(r"[^\w.-]", one)[0] for group in groups for one in group} - {"leadline"}

    table = rows((DOCS / "dependencies.md").read_text())

    assert {code(row[0]) for row in table} - {"package"} == wanted
    assert not [row for row in table if not all(row)]
