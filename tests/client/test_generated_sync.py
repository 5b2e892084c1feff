"""The checked-in synchronous client equals the generator's output."""

import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parents[2] / "client"


def test_the_checked_in_synchronous_client_is_fresh(tmp_path: Path) -> None:
    subprocess.run([sys.executable, CLIENT / "generate_sync.py", "--output", tmp_path], check=True)
    checked_in = contents(CLIENT / "leadline" / "client" / "_sync")
    assert contents(tmp_path) == checked_in, "run `make sync`"


def test_nothing_asynchronous_is_left_in_the_synchronous_client() -> None:
    for name, text in contents(CLIENT / "leadline" / "client" / "_sync").items():
        for word in ("async ", "await ", "Async", "aio", "asyncio"):
            assert word not in text.split("\n", 1)[1], f"{word!r} in {name}"


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.py")}
