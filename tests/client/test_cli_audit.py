"""`leadline audit`, which reads an audit log without a server."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from leadline.client.cli.app import main
from leadline.client.cli.exit_codes import ExitCode

NOW = datetime.now(UTC)
CANCEL = "/leadline.v1.TrainingService/CancelJob"


def entry(hours: float, **values: Any) -> dict[str, Any]:
    moment = NOW - timedelta(hours=hours)
    return {"time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"), **values}


ENTRIES = [
    entry(50, event="call", who="ann", method=CANCEL, resources=["jobs/qqqqqqqq00"], code="OK"),
    entry(
        *(3,),
        event="call",
        who="bob",
        method=CANCEL,
        resources=["jobs/qqqqqqqq00"],
        code="PERMISSION_DENIED",
        reason="NOT_OWNER",
        denied=True,
        peer="ipv4:10.0.0.7:5000",
    ),
    entry(2, event="login", who="ann", code="OK"),
    entry(1, event="call", method=CANCEL, code="UNAUTHENTICATED", denied=True),
]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "audit" / "audit.jsonl"
    path.parent.mkdir(parents=True)
    older = "".join(json.dumps(each) + "\n" for each in ENTRIES[:1])
    (path.parent / "audit.jsonl.1").write_text(older)
    path.write_text("".join(json.dumps(each) + "\n" for each in ENTRIES[1:]))
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("filters", "shown"),
    [
        ([], [0, 1, 2, 3]),
        (["--who", "ann"], [0, 2]),
        (["--who", "ann", "--since", "2d"], [2]),
        (["--since", (NOW - timedelta(hours=2.5)).isoformat()], [2, 3]),
        (["--denied"], [1, 3]),
        (["--resource", "jobs/qqqqqqqq00"], [0, 1]),
        (["--resource", "jobs/qqqqqqqq00", "--denied"], [1]),
    ],
)
def test_entries_are_filtered(
    capsys: pytest.CaptureFixture[str], data_dir: Path, filters: list[str], shown: list[int]
) -> None:
    code = main(["audit", "--data-dir", str(data_dir), "--json", *filters])

    assert code == ExitCode.SUCCESS
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [ENTRIES[number] for number in shown]


def test_people_see_a_table(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    path = data_dir / "audit" / "audit.jsonl"
    assert main(["audit", "--audit-log", str(path)]) == ExitCode.SUCCESS

    heading, _, first, denied, *_ = capsys.readouterr().out.strip().splitlines()
    assert heading.split() == ["time", "who", "method", "resources", "outcome", "from"]
    assert first.split()[2:] == ["ann", "CancelJob", "jobs/qqqqqqqq00", "OK", "-"]
    assert "PERMISSION_DENIED (NOT_OWNER)" in denied
    assert "ipv4:10.0.0.7:5000" in denied


def test_a_missing_log_and_a_wrong_time_are_wrong_usage(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["audit", "--data-dir", str(tmp_path)]) == ExitCode.USAGE
    assert "there is no audit log" in capsys.readouterr().err
    assert main(["audit", "--since", "2026-99-99"]) == ExitCode.USAGE
    assert "is not a time" in capsys.readouterr().err
