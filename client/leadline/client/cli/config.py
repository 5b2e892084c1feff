"""`leadline config`: profiles, which are servers with their credentials."""

import json
import re
from pathlib import Path
from typing import Any

import click

from leadline.client._config import FILES, ConfigFile
from leadline.client.cli.commands import Group, checked
from leadline.client.cli.files import appearing
from leadline.client.cli.options import Session, json_option, session_options, setting_options
from leadline.client.cli.output import Output

_NAME = re.compile(r"[A-Za-z0-9_-]+")


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise click.BadParameter("a profile's name has letters, digits, - and _ only")
    return name


_name_argument = click.argument("name", callback=checked(_check_name))


@click.group(cls=Group)
def config() -> None:
    """Manage profiles: servers with their credentials.

    Other commands take each setting from the first that has it: its option, its variable, the
    profile. --profile, LEADLINE_PROFILE or `leadline config use` chooses the profile. A --target
    without --profile leaves the profile out, so that its token never goes to another server.

    The variables are LEADLINE_TARGET, LEADLINE_TLS, LEADLINE_CA, LEADLINE_CERT, LEADLINE_KEY,
    LEADLINE_SERVER_NAME, LEADLINE_TOKEN_FILE or LEADLINE_TOKEN, LEADLINE_INSECURE_TOKEN.
    """


@config.command("list", examples=("leadline config list",))
@json_option
def list_(*, as_json: bool) -> None:
    """List the profiles, and which one is in use."""
    output, file = Output(as_json=as_json), ConfigFile()
    if as_json:
        for name in file.profiles:
            output.json(_described(file, name))
        return
    rows = [
        (name, _text(name == file.current), values.get("target", ""), _summary(values))
        for name, values in file.profiles.items()
    ]
    output.table(("name", "in use", "target", "settings"), rows)


@config.command(examples=("leadline config show", "leadline config show --profile production"))
@session_options
def show(session: Session) -> None:
    """Show the settings that commands use, and where each comes from; never a secret."""
    settings = {
        name: (value if name != "token" else "(hidden)", source)
        for name, (value, source) in session.settings.values.items()
    }
    if session.output.as_json:
        for name, (value, source) in settings.items():
            session.output.json({"name": name, "value": value, "source": source})
        return
    rows = [(name, _text(value), source) for name, (value, source) in settings.items()]
    session.output.table(("setting", "value", "source"), rows)


@config.command(
    "set",
    examples=(
        "leadline config set production --target https://leadline.example --token-file token",
        "leadline config set production --ca ca.pem --cert ci.pem --key ci.key",
        "leadline config set production --server-name ''",
    ),
)
@_name_argument
@setting_options
@json_option
def set_(*, name: str, given: dict[str, Any], as_json: bool) -> None:
    """Make the profile NAME, or change the given settings of it; an empty value removes one."""
    if all(value is None for value in given.values()):
        raise click.UsageError("give at least one setting")
    file = ConfigFile()
    values = file.profiles.setdefault(name, {})
    for key, value in given.items():
        if value == "":
            values.pop(key, None)
        elif value is not None:
            values[key] = str(Path(value).absolute()) if key in FILES else value
    _write(file, name, as_json=as_json)


@config.command(examples=("leadline config use production",))
@_name_argument
@json_option
def use(*, name: str, as_json: bool) -> None:
    """Use the profile NAME unless another is chosen."""
    file = ConfigFile()
    file.profile(name)
    file.current = name
    _write(file, name, as_json=as_json)


@config.command(examples=("leadline config remove production",))
@_name_argument
@json_option
def remove(*, name: str, as_json: bool) -> None:
    """Remove the profile NAME; its files stay."""
    file = ConfigFile()
    file.profile(name)
    del file.profiles[name]
    file.current = None if file.current == name else file.current
    _write(file, name, as_json=as_json)


@config.command(examples=("leadline config path",))
@json_option
def path(*, as_json: bool) -> None:
    """Print the path of the file with the profiles, which may not exist."""
    place = str(ConfigFile().path)
    click.echo(json.dumps({"path": place}) if as_json else place)


def _summary(values: dict[str, Any]) -> str:
    others = [(key, value) for key, value in values.items() if key != "target"]
    return ", ".join(f"{key.replace('_', '-')} {_text(value)}" for key, value in others)


def _text(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _described(file: ConfigFile, name: str) -> dict[str, Any]:
    return {"name": name, "in_use": name == file.current, **file.profiles.get(name, {})}


def _write(file: ConfigFile, name: str, *, as_json: bool) -> None:
    """Writes the file; with JSON, prints what it now says about a profile."""
    lines = ["# Written by `leadline config`, which keeps no comments."]
    if file.current is not None:
        lines.append(f"current = {_toml(file.current)}")
    for profile, values in file.profiles.items():
        lines += ["", f"[profiles.{_toml(profile)}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in values.items()]
    with appearing(file.path, mode=0o600) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    if as_json:
        Output(as_json=True).json(_described(file, name))


def _toml(value: str | bool) -> str:
    # A JSON string is a TOML string, except for the character DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
