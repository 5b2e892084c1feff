"""Profiles, variables and options of the command line: what wins, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from client.cli_outcome import Outcome
from leadline.client import AsyncClient, Client, UsageError
from leadline.client._config import SETTINGS, ConfigFile, resolve
from leadline.client.cli import main
from leadline.client.cli.exit_codes import ExitCode
from support.certificates import Authority
from support.scripted import answering

SECRET = "ll_planted-token"

Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def config_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the file, which does not exist yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in (*SETTINGS, "token", "profile"):
        monkeypatch.delenv(f"LEADLINE_{name.upper()}", raising=False)
    return tmp_path / "leadline" / "config.toml"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def invoke(*arguments: str) -> Outcome:
        code = main(list(arguments))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return invoke


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)


def settings_of(run: Run, *arguments: str) -> dict[str, tuple[Any, str]]:
    """Returns what `config show` says."""
    outcome = run("config", "show", "--json", *arguments)
    assert outcome.code == ExitCode.SUCCESS, outcome.err
    return {one["name"]: (one["value"], one["source"]) for one in outcome.messages}


def test_without_settings_the_target_is_the_default(run: Run) -> None:
    assert settings_of(run) == {"target": ("127.0.0.1:50051", "default")}


def test_options_win_over_variables_over_the_profile(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("config", "set", "lab", "--target", "https://lab", "--ca", "/lab.pem", "--key", "/lab.key")
    run("config", "use", "lab")
    monkeypatch.setenv("LEADLINE_CA", "/shell.pem")
    monkeypatch.setenv("LEADLINE_CERT", "/shell.cert")
    monkeypatch.setenv("LEADLINE_SERVER_NAME", "")

    assert settings_of(run, "--cert", "/option.cert", "--tls") == {
        "target": ("https://lab", "profile lab"),
        "tls": (True, "--tls"),
        "ca": ("/shell.pem", "LEADLINE_CA"),
        "cert": ("/option.cert", "--cert"),
        "key": ("/lab.key", "profile lab"),
    }


def test_the_token_comes_from_one_place(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("config", "set", "lab", "--token-file", "/lab.token")
    monkeypatch.setenv("LEADLINE_PROFILE", "lab")
    assert settings_of(run)["token_file"] == ("/lab.token", "profile lab")
    monkeypatch.setenv("LEADLINE_TOKEN", SECRET)
    settings = settings_of(run)
    assert settings["token"] == ("(hidden)", "LEADLINE_TOKEN")
    assert "token_file" not in settings
    settings = settings_of(run, "--token-file", "/option.token")
    assert settings["token_file"] == ("/option.token", "--token-file")
    assert "token" not in settings


def test_a_profile_is_left_out_if_the_target_was_chosen_with_more_precedence(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lab", "used"):
        run("config", "set", name, "--target", f"https://{name}", "--token-file", f"/{name}.token")
    run("config", "use", "used")

    assert settings_of(run)["token_file"][0] == "/used.token"
    assert settings_of(run, "--target", "other") == {"target": ("other", "--target")}
    assert settings_of(run, "--target", "other", "--profile", "lab") == {
        "target": ("other", "--target"),
        "token_file": ("/lab.token", "profile lab"),
    }
    monkeypatch.setenv("LEADLINE_TARGET", "of-the-shell")
    assert settings_of(run) == {"target": ("of-the-shell", "LEADLINE_TARGET")}
    monkeypatch.setenv("LEADLINE_PROFILE", "lab")
    assert settings_of(run)["token_file"][0] == "/lab.token"
    assert settings_of(run, "--target", "other") == {"target": ("other", "--target")}


def test_profiles_are_made_changed_listed_and_removed(run: Run, config_path: Path) -> None:
    assert run("config", "path").out == f"{config_path}\n"
    run("config", "set", "a", "--target", "https://a", "--ca", "ca.pem", "--insecure-token")
    run("config", "set", "b", "--server-name", 'quo"ted \\ ü')
    run("config", "set", "a", "--server-name", "c", "--no-tls")
    made = run("config", "set", "a", "--ca", "", "--json").messages
    (used,) = run("config", "use", "b", "--json").messages

    assert config_path.stat().st_mode & 0o777 == 0o600
    assert made == [
        {
            "name": "a",
            "in_use": False,
            "target": "https://a",
            "insecure_token": True,
            "tls": False,
            "server_name": "c",
        }
    ]
    assert used == {"name": "b", "in_use": True, "server_name": 'quo"ted \\ ü'}
    assert run("config", "list", "--json").messages == [*made, used]
    assert [line.split()[:2] for line in run("config", "list").out.splitlines()[3:5]] == [
        ["a", "no"],
        ["b", "yes"],
    ]
    run("config", "remove", "b")
    file = ConfigFile()
    assert (list(file.profiles), file.current) == (["a"], None)


def test_paths_hold_from_any_folder(
    run: Run, config_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("config", "set", "a", "--token-file", "token")
    assert ConfigFile().profiles["a"] == {"token_file": str(tmp_path / "token")}
    monkeypatch.setenv("HOME", "/home/someone")
    text = '[profiles.a]\nca = "ca.pem"\nkey = "~no-such-user/key"\ntoken_file = "~/token"\n'
    write(config_path, text)
    assert ConfigFile().profile("a") == {
        "ca": str(config_path.parent / "ca.pem"),
        "key": str(config_path.parent / "~no-such-user" / "key"),
        "token_file": "/home/someone/token",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profiles = 3", "profiles are tables"),
        ("current = 3", "current is a name"),
        ("colour = 3", "unknown key 'colour'"),
        ("[profiles]\na = 3", "profiles.a is not a table"),
        ("[profiles.a]\ntoken_fil = 'b'", r"profiles.a.token_fil is unknown. Did you mean"),
        (f"[profiles.a]\ntoken = '{SECRET}'", "belongs into a file of its own: token_file"),
        ("[profiles.a]\ntls = 'yes'", "profiles.a.tls must be true or false"),
        ("[profiles.a]\nca = true", "profiles.a.ca must be a text"),
        ("[profiles.a", "is not TOML"),
        ("current = 'b'\n[profiles.a]", "there is no profile 'b'"),
    ],
)
def test_a_malformed_file_is_refused(run: Run, config_path: Path, text: str, message: str) -> None:
    write(config_path, text)
    outcome = run("jobs")
    assert outcome.code == ExitCode.USAGE
    assert message.replace("\\", "") in outcome.err
    assert SECRET not in outcome.err
    assert run("config", "path").code == (
        ExitCode.SUCCESS if "no profile" in message else ExitCode.USAGE
    )


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(run: Run, config_path: Path, mode: int) -> None:
    write(config_path, "")
    config_path.chmod(mode)
    outcome = run("jobs")
    assert outcome.code == ExitCode.USAGE
    assert "others can write" in outcome.err
    assert "chmod go-w" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("set", "a"), "at least one setting"),
        (("set", "a b", "--tls"), "letters, digits"),
        (("set", "a", "--target", "a:b:c"), "is not an address"),
        (("use", "a"), "there is no profile 'a'"),
        (("remove", "a"), "there is no profile 'a'"),
        (("show", "--profile", "a"), "there is no profile 'a'"),
    ],
)
def test_wrong_uses_change_nothing(
    run: Run, config_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = run("config", *arguments)
    assert outcome.code == ExitCode.USAGE
    assert message in outcome.err
    assert not config_path.exists()


def test_a_variable_that_is_no_boolean_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value, meaning in (("1", True), ("ON", True), ("false", False)):
        monkeypatch.setenv("LEADLINE_TLS", value)
        assert settings_of(run)["tls"] == (meaning, "LEADLINE_TLS")
    monkeypatch.setenv("LEADLINE_TLS", "maybe")
    outcome = run("jobs")
    assert outcome.code == ExitCode.USAGE
    assert "LEADLINE_TLS must be true or false, is 'maybe'" in outcome.err


def test_the_sdk_takes_the_settings_of_the_command_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("config", "set", "lab", "--target", "https://lab:443")
    run("config", "set", "used", "--target", "https://used:443")
    run("config", "use", "used")
    monkeypatch.setenv("LEADLINE_TOKEN", SECRET)
    with Client.from_config() as client:
        assert repr(client) == "Client('used:443')"
    with Client.from_config("lab", token="other", timeout=1.0) as client:
        assert repr(client) == "Client('lab:443')"
    with Client.from_config(target="localhost") as client:
        assert repr(client) == "Client('localhost:50051')"
    assert repr(AsyncClient.from_config("lab")) == "AsyncClient('lab:443')"
    with pytest.raises(UsageError, match=r"no profile 'la'.*Did you mean lab"):
        Client.from_config("la")


def test_settings_do_not_print_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADLINE_TOKEN", SECRET)
    assert SECRET not in repr(resolve({}))


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, ExitCode.UNAUTHENTICATED, "with --token-file"),
        (grpc.StatusCode.PERMISSION_DENIED, ExitCode.PERMISSION_DENIED, "permission denied: no"),
    ],
)
def test_a_refusal_has_its_exit_code_and_does_not_quote_the_token(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    status: grpc.StatusCode,
    code: ExitCode,
    message: str,
) -> None:
    monkeypatch.setenv("LEADLINE_TOKEN", SECRET)

    def refuse(_request: bytes, context: grpc.ServicerContext) -> bytes:
        assert dict(context.invocation_metadata())["authorization"] == f"Bearer {SECRET}"
        context.abort(status, "no")
        raise AssertionError

    with answering(refuse) as target:
        for arguments in (("jobs",), ("watch", "a"), ("train",), ("health",)):
            outcome = run(*arguments, "--target", target)
            assert outcome.code == code
            assert message in outcome.err
            described = run(*arguments, "--target", target, "--json").error
            assert (described["code"], described["exit_code"]) == (status.name, code)
            assert SECRET not in f"{outcome}{described}"


def test_a_failure_of_tls_is_one_sentence_without_lines_of_grpc(run: Run, tmp_path: Path) -> None:
    authority = Authority()
    pair = authority.server("other.example")
    credentials = grpc.ssl_server_credentials([(pair.key, pair.certificate)])
    with answering(lambda _request, _context: b"", credentials) as target:
        options = ("--target", target, "--ca", str(authority.write(tmp_path)))
        failed = subprocess.run(
            (sys.executable, "-m", "leadline", "jobs", *options),
            check=False,
            capture_output=True,
            text=True,
        )
        working = run("jobs", *options, "--server-name", "other.example")
    assert failed.returncode == ExitCode.TLS_FAILED
    assert failed.stderr.startswith("Error: the server's certificate is for another name")
    assert failed.stderr.count("\n") == 1
    assert working.code == ExitCode.SUCCESS


def test_a_token_for_another_machine_needs_tls(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADLINE_TOKEN", SECRET)
    outcome = run("jobs", "--target", "192.0.2.7")
    assert outcome.code == ExitCode.USAGE
    assert "would cross the network unencrypted" in outcome.err
    assert SECRET not in outcome.err
    assert SECRET not in json.dumps(run("jobs", "--target", "192.0.2.7", "--json").error)


def test_a_folder_that_cannot_be_searched_has_no_profiles(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", f"/{'x' * 300}")
    assert settings_of(run) == {"target": ("127.0.0.1:50051", "default")}
