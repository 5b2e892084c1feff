"""The help of every command is complete and correct."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from leadline.client import TlsError, UsageError
from leadline.client._config import SETTINGS
from leadline.client._errors import STATUS_ERRORS
from leadline.client.cli import main
from leadline.client.cli.app import COMMANDS, leadline
from leadline.client.cli.commands import Command
from leadline.client.cli.exit_codes import ExitCode, exit_code


def all_commands() -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    context = click.Context(leadline)
    for name in COMMANDS:
        command = leadline.get_command(context, name)
        assert command is not None
        found[name] = command
        if isinstance(command, click.Group):
            found |= {f"{name} {inner}": one for inner, one in command.commands.items()}
    return found


ALL = all_commands()
LEAVES = {name: one for name, one in ALL.items() if not isinstance(one, click.Group)}


def test_the_list_of_commands_says_what_the_commands_say() -> None:
    for name, listed in COMMANDS.items():
        beginning = re.split("[,;.]", listed.help)[0].lower()
        assert (ALL[name].help or "").lower().startswith(beginning), name


def test_the_list_shows_every_command_and_every_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == ExitCode.SUCCESS
    text = capsys.readouterr().out
    for name, listed in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(listed.help)}$", text, re.MULTILINE)
    for code in ExitCode:
        assert re.search(rf"^  {int(code)} +{re.escape(code.meaning)}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", [name for name in ALL if name != "serve"])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_has_a_help_with_every_option_explained(
    capsys: pytest.CaptureFixture[str], name: str, flag: str
) -> None:
    assert main([*name.split(), flag]) == ExitCode.SUCCESS
    text = capsys.readouterr().out
    assert ALL[name].help
    for parameter in ALL[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.opts[0] in text


@pytest.mark.parametrize("name", list(LEAVES))
def test_every_command_has_examples_that_parse(name: str) -> None:
    command = LEAVES[name]
    assert isinstance(command, Command)
    assert any(example.startswith(f"leadline {name}") for example in command.examples)
    for example in command.examples:
        for arguments in re.findall(r"leadline ([^|()<>;]+)", example):
            words = shlex.split(re.sub(r"\d>.*|\$$", "", arguments))
            assert words[0] in COMMANDS
            parsed = words[0] if words[0] in LEAVES else " ".join(words[:2])
            known = {flag for parameter in ALL[parsed].params for flag in parameter.opts}
            known |= {flag for one in ALL[parsed].params for flag in one.secondary_opts}
            if parsed not in {"serve", "doctor", "compact"}:  # with the options of the server
                assert {word for word in words if word.startswith("--")} <= known


def test_the_ids_in_examples_look_like_real_ones() -> None:
    texts = [example for one in LEAVES.values() for example in getattr(one, "examples", ())]
    found = re.findall(r"(?:jobs|models)/(\w+)", " ".join(texts))
    assert found
    assert all(re.fullmatch("[a-z0-9]{10}", one) for one in found)


@pytest.mark.parametrize("name", [name for name in LEAVES if name != "serve"])
def test_every_command_prints_json(name: str) -> None:
    assert "as_json" in {parameter.name for parameter in LEAVES[name].params}


# Commands that call no server, or their own.
LOCAL = {"serve", "doctor", "compact", "audit", "demo", "version"} | {
    f"config {name}" for name in ("list", "path", "remove", "set", "use")
}
LOCAL |= {f"tokens {name}" for name in ("create", "list", "revoke")}


@pytest.mark.parametrize("name", [name for name in LEAVES if name not in LOCAL])
def test_every_command_that_calls_a_server_says_where(name: str) -> None:
    options = {parameter.name: parameter for parameter in LEAVES[name].params}
    assert {*SETTINGS, "profile", "timeout"} <= options.keys()


def test_serve_passes_everything_on_to_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == ExitCode.SUCCESS
    assert "--data-dir" in capsys.readouterr().out
    assert main(["serve", "--no-such-option"]) == ExitCode.USAGE


@pytest.mark.parametrize("command", ["serve", "doctor", "compact"])
def test_commands_of_the_server_say_what_to_install(command: str) -> None:
    code = (
        "import sys; sys.modules['pydantic'] = None; "
        f"from leadline.client.cli import main; sys.exit(main(['{command}']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == ExitCode.USAGE
    assert "pip install '.[server]'" in done.stderr


@pytest.mark.parametrize("command", ["misclassified", "plot"])
def test_pictures_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setattr("leadline.client.cli.figures.files.can_plot", lambda: False)
    arguments = ["curves", "a"] if command == "plot" else ["--model", "a"]
    assert main([command, *arguments, "--out", "a.png"]) == ExitCode.USAGE
    assert "pip install '.[plot]'" in capsys.readouterr().err


def test_every_error_has_an_exit_code() -> None:
    codes = {error.__name__: exit_code(error("why")) for error in STATUS_ERRORS.values()}
    assert {name: code for name, code in codes.items() if code is not ExitCode.SERVER_ERROR} == {
        "InvalidArgumentError": ExitCode.USAGE,
        "NotFoundError": ExitCode.NOT_FOUND,
        "UnavailableError": ExitCode.UNAVAILABLE,
        "DeadlineExceededError": ExitCode.DEADLINE_EXCEEDED,
        "UnauthenticatedError": ExitCode.UNAUTHENTICATED,
        "PermissionDeniedError": ExitCode.PERMISSION_DENIED,
    }
    assert exit_code(TlsError("why")) is ExitCode.TLS_FAILED
    assert exit_code(UsageError("why")) is ExitCode.USAGE
    assert exit_code(FileNotFoundError("a.png")) is ExitCode.USAGE


@pytest.mark.parametrize("arguments", [["nothing"], ["train", "--nothing"], ["watch"]])
def test_a_wrong_command_line_ends_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["tran"], "train"),
        (["predcit"], "predict"),
        (["errors"], "label-errors"),
        (["plot", "curve", "a"], "curves"),
        (["train", "--lr", "1"], "--learning-rate"),
        (["train", "--epoch", "1"], "--epochs"),
        (["train", "--norm"], "--batch-norm"),
        (["sweep", "--bn", "both"], "--batch-norm"),
        (["watch", "a", "--jsn"], "--json"),
        (["plot", "curves", "a", "--outt", "b"], "--out"),
    ],
)
def test_a_slip_is_told_with_what_is_meant(
    capsys: pytest.CaptureFixture[str], arguments: list[str], meant: str
) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert capsys.readouterr().err.endswith(f"Did you mean {meant}?\n")


def test_what_resembles_nothing_gets_no_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--xyzzy"]) == ExitCode.USAGE
    assert capsys.readouterr().err.endswith("No such option: --xyzzy.\n")


@pytest.mark.parametrize(
    ("words", "number", "completed"),
    [("leadline tra", 1, "train"), ("leadline train --learn", 2, "--learning-rate")],
)
def test_a_shell_completes_commands_and_options(words: str, number: int, completed: str) -> None:
    environment = {
        **os.environ,
        "_LEADLINE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(number),
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("leadline")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert f"plain,{completed}\n" in done.stdout


def test_an_option_before_its_command_is_an_error_that_says_where_it_belongs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--target", "localhost", "jobs"]) == ExitCode.USAGE
    assert "Options of a command follow its name." in capsys.readouterr().err
