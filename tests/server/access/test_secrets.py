"""A planted token: it is in no log, no output, no error, no metric, no report and no file."""

import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from support.identities import Tokens
from support.servers import LiveServer, ServerFactory

pytestmark = pytest.mark.system


class Caller:
    """Somebody who uses the command line and a browser, and keeps all that they show."""

    def __init__(self, folder: Path, server: LiveServer, token: str) -> None:
        self.folder = folder
        self.shown: list[str] = []
        self._token = token
        (folder / "ci.token").write_text(token)
        self._environment = {
            **os.environ,
            "LEADLINE_TARGET": server.target,
            "LEADLINE_TOKEN_FILE": str(folder / "ci.token"),
            "XDG_CONFIG_HOME": str(folder / "config"),
        }

    def leadline(self, *arguments: str, is_right: bool = True) -> None:
        """Runs a command in the folder."""
        done = subprocess.run(
            [sys.executable, "-m", "leadline", *arguments],
            env=self._environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode == 0) == is_right, done.stderr
        self.shown += (done.stdout, done.stderr)

    def get(self, url: str) -> None:
        """Gets a page with the token."""
        headers = {"Authorization": f"Bearer {self._token}"}
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:  # noqa: S310
            self.shown.append(f"{response.headers} {response.read().decode()}")

    def fail_to_log_in(self, page: str, token: str) -> None:
        """Sends the login form."""
        form = urllib.parse.urlencode({"token": token}).encode()
        origin = {"Origin": page.rstrip("/")}
        request = urllib.request.Request(f"{page}login", data=form, headers=origin)  # noqa: S310
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)  # noqa: S310
        self.shown.append(f"{refused.value.headers} {refused.value.read().decode()}")


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_token_is_shown_once(server_factory: ServerFactory, tmp_path: Path) -> None:
    data = tmp_path / "server" / "data"
    token = Tokens(data / "tokens.json").create("ci", "admin")
    server = server_factory("--audit-reads", "--log-level=debug")
    page = server.metrics_url.removesuffix("metrics")
    (tmp_path / "caller").mkdir()
    caller = Caller(tmp_path / "caller", server, token)

    caller.leadline("train", "--dataset=tiny", "--blocks=1", "--epochs=1", "--json")
    caller.leadline("models", "--json")
    caller.leadline("misclassified", "--dataset=tiny", "--blocks=1", "--out=wrong.png")
    caller.leadline("report", f"jobs/{job_in(caller.shown[0])}", "--out=report.html")
    caller.leadline("config", "set", "here", "--token-file=ci.token")
    caller.leadline("config", "show", "--json")
    caller.leadline("quota")
    caller.leadline("tokens", "list", f"--data-dir={data}", "--json")
    caller.leadline("audit", f"--data-dir={data}", "--json")
    caller.leadline("cancel", "jobs/bbbbbbbbbb", is_right=False)
    for path in ("", "metrics"):
        caller.get(page + path)
    (caller.folder / "ci.token").write_text(f"{token}x")
    caller.leadline("jobs", is_right=False)
    caller.fail_to_log_in(page, f"{token}x")
    assert server.stop() == 0

    (caller.folder / "ci.token").unlink()
    secret = token[3:40]
    assert not [text for text in caller.shown if secret in text]
    kept = {**files_of(tmp_path / "server"), **files_of(caller.folder)}
    assert {server.log, data / "audit/audit.jsonl", caller.folder / "report.html"} < kept.keys()
    assert not [path for path, content in kept.items() if secret.encode() in content]


def job_in(output: str) -> str:
    """The id of the first job that an output names."""
    return output.split("jobs/", 1)[1][:10]
