"""The whole demo, and its errors."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image as Pillow

from leadline.client.cli import main
from leadline.client.cli.exit_codes import ExitCode
from support.servers import LiveServer

pytestmark = pytest.mark.system


def test_the_demonstration_shows_everything_and_cleans_up(
    tmp_path: Path, tiny_dataset: Path
) -> None:
    out, data = tmp_path / "demo", tmp_path / "data"
    command = [*(sys.executable, "-m", "leadline.client.cli", "demo"), *("--epochs", "1")]
    command += ["--dataset", f"tiny={tiny_dataset}"]
    done = subprocess.run(
        [*command, "--out", out, "--data-dir", data],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == ExitCode.SUCCESS, done.stderr
    for shown in ("epoch 1/1", "succeeded: best epoch 1", "by models/", "predicted", "Next"):
        assert shown in done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["curves.png", "grid.png"]
    for path in out.iterdir():
        with Pillow.open(path) as picture:
            assert min(picture.size) > 500
    assert not (data / "demo-ready.json").exists()


def test_a_server_that_cannot_start_is_told_with_its_log(
    live_server: LiveServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Only one server can use a folder at a time.
    code = main(["demo", "--data-dir", str(live_server.data_dir), "--out", str(tmp_path)])
    assert code == ExitCode.SERVER_ERROR
    err = capsys.readouterr().err
    assert "The end of the server's log" in err
    assert "Error: the server ended with status" in err
    assert list(tmp_path.iterdir()) == []
