"""A server that others could reach in the open does not start."""

import re
from pathlib import Path
from typing import Any

import pytest

from leadline.server.settings import Settings
from leadline.server.startup import StartupError, load_access
from support.identities import Tokens
from support.servers import Launcher, ServerFactory, ServerNeverCameError

WITHOUT_TLS = r"without TLS \(set --tls-cert and --tls-key\)"
WITHOUT_IDENTITIES = r"without identities \(create a token: `leadline tokens create`\)"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost"])
def test_on_loopback_everybody_may_do_everything_by_default(tmp_path: Path, host: str) -> None:
    assert not load_access(Settings(data_dir=tmp_path, host=host, metrics_host=host)).is_required


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "gpu1", "", "::ffff:127.0.0.1"])  # noqa: S104
@pytest.mark.parametrize("flag", ["host", "metrics_host"])
def test_beyond_loopback_a_server_needs_tls_and_identities(
    tmp_path: Path, host: str, flag: str
) -> None:
    options: dict[str, Any] = {"data_dir": tmp_path, flag: host}
    named = re.escape(f"--{flag.replace('_', '-')} {host}")

    with pytest.raises(StartupError, match=f"{named}.*{WITHOUT_TLS} and {WITHOUT_IDENTITIES}"):
        load_access(Settings(**options))
    assert not load_access(Settings(**options, insecure=True)).is_required


def test_tokens_beyond_loopback_need_tls(tmp_path: Path) -> None:
    Tokens(tmp_path / "tokens.json").create("ci", "trainer")
    beyond = Settings(data_dir=tmp_path, host="0.0.0.0")  # noqa: S104

    with pytest.raises(StartupError, match=f"machines {WITHOUT_TLS}; --insecure allows it"):
        load_access(beyond)


def test_insecure_switches_nothing_off(tmp_path: Path) -> None:
    Tokens(tmp_path / "tokens.json").create("ci", "trainer")

    access = load_access(Settings(data_dir=tmp_path, host="0.0.0.0", insecure=True))  # noqa: S104

    assert access.is_required


@pytest.mark.parametrize(
    ("option", "contents"), [("tokens_file", "{}x"), ("access_file", "[x]"), ("access_file", None)]
)
def test_a_server_does_not_start_with_a_broken_file(
    tmp_path: Path, option: str, contents: str | None
) -> None:
    path = tmp_path / "file"
    if contents is not None:
        path.write_text(contents)
    options: dict[str, Any] = {option: path}

    with pytest.raises(StartupError, match=str(path)):
        load_access(Settings(data_dir=tmp_path, **options))


def test_a_named_tokens_file_may_be_created_later(tmp_path: Path) -> None:
    assert load_access(Settings(data_dir=tmp_path, tokens_file=tmp_path / "later")).is_required


@pytest.mark.system
def test_the_program_says_why_it_does_not_start(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path, "--port=0", "--host=0.0.0.0")

    with pytest.raises(ServerNeverCameError, match="status 1") as error:
        launcher.wait_ready(launcher.spawn())

    assert re.search(WITHOUT_TLS, str(error.value))


def test_insecure_is_logged(server_factory: ServerFactory) -> None:
    server = server_factory("--host=0.0.0.0", "--insecure", "--spare-workers=0")

    assert '"other machines are served in the open"' in server.log.read_text()
