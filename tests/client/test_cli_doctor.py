"""`leadline doctor`, as a process."""

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from client.cli_outcome import SCRIPT
from leadline.client.cli.exit_codes import ExitCode

# Some seconds of computing, on a machine where other tests may also run.
_SECONDS = 400
pytestmark = [pytest.mark.system, pytest.mark.timeout(_SECONDS + 20)]

FREE_PORTS = ("--port", "0", "--metrics-port", "0")


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SCRIPT, "doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
        env={**os.environ, **environment},
    )


def checks_of(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    (line,) = done.stdout.splitlines()
    printed = json.loads(line)
    assert list(printed) == ["ok", "checks"]
    for check in printed["checks"]:
        assert list(check) == ["name", "status", "value", "detail", "advice"]
        assert check["status"] in {"ok", "warning", "failed", "skipped"}
    failed = any(check["status"] == "failed" for check in printed["checks"])
    assert printed["ok"] is not failed
    return {check["name"]: check for check in printed["checks"]}


def test_a_machine_where_all_is_well_ends_with_0_and_leaves_no_trace(
    tmp_path: Path, tiny_dataset: Path
) -> None:
    folder = tmp_path / "data"
    home = tmp_path / "home"

    done = doctor(
        *FREE_PORTS,
        *("--data-dir", str(folder), "--dataset", f"tiny={tiny_dataset}"),
        HOME=str(home),
        XDG_CACHE_HOME=str(home / "cache"),
    )

    assert done.returncode == ExitCode.SUCCESS, done.stdout + done.stderr
    for name in ("processor", "fsync", "dataset tiny", "agreement cpu", "gpu driver"):
        assert f"\n {name} " in done.stdout
    assert done.stdout.endswith("All checks passed.\n")
    assert list(tmp_path.iterdir()) == []


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "damaged.tar").write_bytes(b"no tar at all")
    sources = {"gone": str(tmp_path / "gone.tar"), "damaged": str(tmp_path / "damaged.tar")}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = doctor(
            *("--json", "--metrics-port", "0", "--port", str(taken.getsockname()[1])),
            LEADLINE_DATA_DIR=str(tmp_path / "file" / "data"),
            LEADLINE_DATASETS=json.dumps(sources),
        )

    checks = checks_of(done)
    failed = {name for name, check in checks.items() if check["status"] == "failed"}
    assert done.returncode == ExitCode.FAILED
    assert failed == {"data directory", "grpc port", "dataset gone", "dataset damaged"}
    assert all(checks[name]["advice"] for name in failed)
    assert checks["agreement cpu"]["status"] == "ok"
    assert checks["dataset synthetic"]["detail"]["classes"] == 10


@pytest.mark.parametrize("as_json", [False, True])
def test_a_wrong_option_ends_with_2(as_json: bool) -> None:
    done = doctor("--port", "many", *(["--json"] if as_json else []))

    assert done.returncode == ExitCode.USAGE
    assert "--port (or LEADLINE_PORT" in done.stderr
    assert done.stdout == ""
