"""Where a client finds its server and its credentials: options, environment, profiles.

A profile is a named table of `~/.config/leadline/config.toml`. It describes one server, so its
token must not go to another: a target that is chosen with more precedence than the profile leaves
the whole profile out.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from leadline.client._channel import DEFAULT_PORT
from leadline.client._errors import UsageError
from leadline.client._security import expanded
from leadline.client._text import did_you_mean

DEFAULT_TARGET = f"127.0.0.1:{DEFAULT_PORT}"

ENVIRONMENT_PREFIX = "LEADLINE_"

SETTINGS: dict[str, type] = {
    "target": str,
    "tls": bool,
    "ca": str,
    "cert": str,
    "key": str,
    "server_name": str,
    "token_file": str,
    "insecure_token": bool,
}
"""The keys of a profile, which are arguments of `Client` too, and their types."""

FILES = ("ca", "cert", "key", "token_file")
"""The settings that are paths."""

# A token's value: in the environment only, because a file of settings is not a place for secrets.
_TOKEN = "token"  # noqa: S105 - a name

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class Setting(NamedTuple):
    """A value, and where it comes from: "--ca", "LEADLINE_CA", "profile gpu", "default"."""

    value: Any
    source: str


@dataclass(frozen=True)
class Settings:
    """The settings of a connection.

    Attributes:
        values: the settings by their names, which are arguments of `Client`.
        profile: the name of the used profile, if any.
        options: the settings that options set, by their names, with the profile.
    """

    values: dict[str, Setting] = field(repr=False)  # may have a token
    profile: str | None
    options: dict[str, Any]

    def arguments(self) -> dict[str, Any]:
        """The arguments of `Client`."""
        return {name: setting.value for name, setting in self.values.items()}


class ConfigFile:
    """The file of profiles.

    Attributes:
        path: the file, which may not exist.
        current: the name of the profile that is used unless another is chosen.
        profiles: the settings of each profile, by its name, as they stand in the file.
    """

    def __init__(self) -> None:
        """Reads the file.

        Raises:
            UsageError: others may write it, or it is malformed.
            OSError: it cannot be read.
        """
        folder = expanded(os.environ.get("XDG_CONFIG_HOME") or "~/.config")
        self.path = folder / "leadline" / "config.toml"
        self.current: str | None = None
        self.profiles: dict[str, dict[str, Any]] = {}
        # Not `Path.exists`, which raises an error for a folder that is closed to this user.
        if os.path.exists(self.path):  # noqa: PTH110
            self._read()

    def profile(self, name: str) -> dict[str, Any]:
        """The settings of a profile; paths are relative to the folder of the file.

        Raises:
            UsageError: there is no such profile.
        """
        if name not in self.profiles:
            hint = did_you_mean(name, self.profiles)
            raise UsageError(f"there is no profile {name!r} in {self.path}.{hint}")
        return {
            key: str(self.path.parent / expanded(value)) if key in FILES else value
            for key, value in self.profiles[name].items()
        }

    def _read(self) -> None:
        with self.path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
                raise UsageError(
                    f"others can write {self.path}, and so choose where your token goes: make it "
                    "yours, with `chmod go-w`"
                )
            try:
                self._parse(tomllib.load(stream))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise UsageError(f"{self.path} is not TOML: {error}") from None

    def _parse(self, document: dict[str, Any]) -> None:
        self.current = document.pop("current", None)
        profiles = document.pop("profiles", {})
        if document:
            raise UsageError(f"{self.path}: unknown key {next(iter(document))!r}")
        if not isinstance(self.current, str | None) or not isinstance(profiles, dict):
            raise UsageError(f"{self.path}: current is a name, and profiles are tables")
        for name, values in profiles.items():
            if not isinstance(values, dict):
                raise UsageError(f"{self.path}: profiles.{name} is not a table")
            for key, value in values.items():
                self._check(name, key, value)
        self.profiles = profiles

    def _check(self, profile: str, key: str, value: Any) -> None:
        place = f"{self.path}: profiles.{profile}.{key}"
        if key not in SETTINGS:
            secret = " A token belongs into a file of its own: token_file." * (key == _TOKEN)
            raise UsageError(f"{place} is unknown.{secret or did_you_mean(key, SETTINGS)}")
        if not isinstance(value, SETTINGS[key]):
            kind = "true or false" if SETTINGS[key] is bool else "a text"
            raise UsageError(f"{place} must be {kind}")


def resolve(options: Mapping[str, Any], profile: str | None = None) -> Settings:
    """The settings of a connection: options first, then the environment, a profile, defaults.

    Args:
        options: the given options, by the names of settings; those that are None are not given.
        profile: the profile to use; by default that of LEADLINE_PROFILE, or the current one.

    Raises:
        UsageError: the profile, its file or a variable is wrong.
        OSError: the file cannot be read.
    """
    given = {name: value for name, value in options.items() if value is not None}
    environment = _environment()
    levels = [
        {name: Setting(value, f"--{name.replace('_', '-')}") for name, value in given.items()},
        environment,
    ]
    name = _profile_name(profile, given, environment)
    if name is not None:
        values = ConfigFile().profile(name)
        levels.append({key: Setting(value, f"profile {name}") for key, value in values.items()})
    levels.append({"target": Setting(DEFAULT_TARGET, "default")})
    settings: dict[str, Setting] = {}
    for level in levels:
        has_token = not settings.keys().isdisjoint((_TOKEN, "token_file"))
        for key, setting in level.items():
            if key not in settings and not (has_token and key in (_TOKEN, "token_file")):
                settings[key] = setting
    if profile is not None:
        given["profile"] = profile
    return Settings(settings, name, given)


def client_arguments(options: Mapping[str, Any], profile: str | None) -> dict[str, Any]:
    """The arguments of `Client`: `options`, completed as `resolve` does."""
    settings = {name: value for name, value in options.items() if name in (*SETTINGS, _TOKEN)}
    return {**resolve(settings, profile).arguments(), **options}


def _profile_name(
    chosen: str | None, given: Mapping[str, Any], environment: Mapping[str, Setting]
) -> str | None:
    if chosen is not None:
        return chosen
    if "target" in given:
        return None
    by_environment = os.environ.get(f"{ENVIRONMENT_PREFIX}PROFILE")
    if by_environment:
        return by_environment
    return None if "target" in environment else ConfigFile().current


def _environment() -> dict[str, Setting]:
    settings = {}
    for name, kind in {**SETTINGS, _TOKEN: str}.items():
        variable = f"{ENVIRONMENT_PREFIX}{name.upper()}"
        value = os.environ.get(variable)
        if value:  # empty is the same as unset
            settings[name] = Setting(_flag(variable, value) if kind is bool else value, variable)
    return settings


def _flag(variable: str, value: str) -> bool:
    if value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    raise UsageError(f"{variable} must be true or false, is {value!r}")
