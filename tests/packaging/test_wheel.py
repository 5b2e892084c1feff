import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("v1", "models", "server", "client")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_all_four_parts_typed_and_nothing_of_the_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert {f"leadline/{part}/py.typed" for part in PARTS} <= set(names)
    assert "leadline/__init__.py" not in names
    assert {"leadline/v1/job.proto", "leadline/v1/job_pb2.py"} <= set(names)
    assert {f"leadline/server/live/assets/{name}" for name in ("index.html", "main.js")} <= set(
        names
    )
    assert not [name for name in names if "test" in name or name.startswith("protos")]


def test_the_wheel_installs_into_an_empty_environment_and_imports(
    wheel: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True
    )
    # Its dependencies come from this environment, without the editable install: Python ignores .pth
    # files in a path that a .pth file adds.
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    (site / "lent.pth").write_text(sysconfig.get_path("purelib"))

    imports = "; ".join(f"import leadline.{part}" for part in (*PARTS, "server.application"))
    shown = subprocess.run(
        [python, "-I", "-c", f"{imports}; print(leadline.server.__file__)"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )

    assert shown.stdout.startswith(str(tmp_path / "env"))
