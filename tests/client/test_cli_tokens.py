"""`leadline tokens`, on the machine of a server."""

import json
from pathlib import Path

import pytest

from leadline.client.cli import main
from leadline.client.cli.exit_codes import ExitCode
from leadline.server.access.tokens import digest_of, read_tokens


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["tokens", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the server, which an environment variable names."""
    monkeypatch.setenv("LEADLINE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def test_a_token_is_shown_once_and_alone(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, err = run(capsys, "create", "--name", "ci", "--role", "trainer", "--expires", "90d")

    assert code == ExitCode.SUCCESS
    (token,) = read_tokens(folder / "tokens.json")
    assert digest_of(out.removesuffix("\n").encode()).hex() == token.sha256
    assert token.expires is not None
    assert (token.expires - token.created).days == 90
    assert token.id in err
    assert out.strip() not in err

    _, listed, _ = run(capsys, "list")
    _, as_json, _ = run(capsys, "list", "--json")
    assert token.id in listed
    assert json.loads(as_json)["name"] == "ci"
    for text in (listed, as_json):
        assert out.strip()[3:20] not in text
        assert token.sha256[:20] not in text


def test_json_has_the_token_and_its_description(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "create", "--name", "ci", "--role", "viewer", "--json")

    values = json.loads(out)
    assert values.keys() == {"token", "id", "name", "role", "created", "expires"}
    assert values["expires"] is None


def test_tokens_are_revoked_by_id(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    for name in ("one", "two", "three"):
        run(capsys, "create", "--name", name, "--role", "viewer")
    one, two, three = (token.id for token in read_tokens(folder / "tokens.json"))

    code, out, _ = run(capsys, "revoke", one, three)

    assert code == ExitCode.SUCCESS
    assert out.splitlines() == [
        f"revoked {one} of one, viewer",
        f"revoked {three} of three, viewer",
    ]
    assert [token.id for token in read_tokens(folder / "tokens.json")] == [two]
    code, _, err = run(capsys, "revoke", two, "0000000000")
    assert code == ExitCode.USAGE
    assert "there is no token 0000000000" in err
    assert json.loads(run(capsys, "list", "--json")[1])["id"] == two


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["create", "--name", "a b", "--role", "viewer"], "is not a name"),
        (["create", "--name", "me", "--role", "viewer"], "not me"),
        (["create", "--name", "ci", "--role", "anyone"], "anyone"),
        (["create", "--name", "ci", "--role", "viewer", "--expires", "0s"], "at once"),
        (["create", "--name", "ci", "--role", "viewer", "--expires", "9999999d"], "9999"),
        (["create", "--name", "ci", "--role", "viewer", "--expires", "soon"], "duration"),
        (["list"], "create a token"),
        (["revoke", "0000000000"], "there is no token"),
    ],
)
def test_wrong_usage_is_explained(
    capsys: pytest.CaptureFixture[str], folder: Path, arguments: list[str], says: str
) -> None:
    code, _, err = run(capsys, *arguments)

    assert code == ExitCode.USAGE
    assert says in err
    assert not (folder / "tokens.json").exists()


def test_the_place_is_that_of_the_servers_options(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "leadline.toml").write_text(f'tokens_file = "{tmp_path}/from-config.json"\n')
    create = ("create", "--name", "ci", "--role", "viewer")

    run(capsys, *create, "--data-dir", str(tmp_path / "other"))
    run(capsys, *create, "--tokens-file", str(tmp_path / "named.json"))
    run(capsys, *create, "--config", str(tmp_path / "leadline.toml"))

    for file in ("other/tokens.json", "named.json", "from-config.json"):
        assert len(read_tokens(tmp_path / file)) == 1


def test_a_damaged_file_is_explained_and_kept(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    folder.mkdir()
    (folder / "tokens.json").write_text("{")

    for arguments in (["list"], ["create", "--name", "ci", "--role", "viewer"]):
        code, _, err = run(capsys, *arguments)
        assert code == ExitCode.USAGE
        assert "is damaged" in err
    assert (folder / "tokens.json").read_text() == "{"
