"""The server's settings as command-line options."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from leadline.server.settings import ENVIRONMENT_PREFIX, Settings, load_settings

# The only option whose flag has another name: `--dataset NAME=SOURCE`, repeatable.
_DATASETS = "datasets"


def settings_command(
    name: str, callback: Callable[[Settings], Any], *, help_text: str
) -> click.Command:
    """A command that takes every option of the server.

    Args:
        name: the name in its help.
        callback: called with the settings; the command returns its result.
        help_text: describes the command; a text about the options follows it.
    """

    def run(config: Path | None, **flags: Any) -> Any:
        return callback(_settings(config, flags))

    options = [
        click.Option(
            ["--config"],
            type=click.Path(path_type=Path),
            envvar=f"{ENVIRONMENT_PREFIX}CONFIG",
            help="A TOML file of these options.",
        ),
        *(_option(name, field) for name, field in Settings.model_fields.items()),
    ]
    return click.Command(
        name,
        callback=run,
        params=list(options),
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        help=f"{help_text} Every option can also be set by its environment variable, "
        f"which is the flag's name behind {ENVIRONMENT_PREFIX}, or in the file that --config "
        "names; a flag wins over a variable, a variable over the file.",
    )


def _option(name: str, field: FieldInfo) -> click.Option:
    help_text = field.description or ""
    if name == _DATASETS:
        return click.Option(
            ["--dataset", _DATASETS], multiple=True, metavar="NAME=SOURCE", help=help_text
        )
    flag = "--" + name.replace("_", "-")
    default = "" if field.default is None else f"  [default: {_shown(field.default)}]"
    if field.annotation is bool:
        flag = f"{flag}/--no-{name.replace('_', '-')}"
        return click.Option([flag, name], default=None, help=help_text + default)
    return click.Option([flag, name], metavar="VALUE", help=help_text + default)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _settings(config: Path | None, flags: dict[str, Any]) -> Settings:
    datasets = _datasets(flags.pop(_DATASETS))
    explicit = {name: value for name, value in flags.items() if value is not None}
    if datasets:
        explicit[_DATASETS] = datasets
    try:
        return load_settings(explicit, config)
    except ValidationError as error:
        raise click.UsageError(_explain(error)) from error
    except tomllib.TOMLDecodeError as error:
        raise click.UsageError(f"{config} is not valid TOML: {error}") from error
    except OSError as error:
        raise click.UsageError(f"cannot read {config}: {error.strerror}") from error


def _datasets(pairs: tuple[str, ...]) -> dict[str, str]:
    datasets = {}
    for pair in pairs:
        name, equals, source = pair.partition("=")
        if not (name and equals and source):
            raise click.UsageError(f"--dataset takes NAME=SOURCE, not {pair!r}")
        if name in datasets:
            raise click.UsageError(f"--dataset names {name!r} twice")
        datasets[name] = os.path.expanduser(source)  # noqa: PTH111 - a source need not be a path
    return datasets


def _explain(error: ValidationError) -> str:
    """A line for each invalid option."""
    lines: dict[str, list[Any]] = {}
    for details in error.errors():
        lines.setdefault(str(details["loc"][0]) if details["loc"] else "settings", []).append(
            details
        )
    return "\n".join(_explain_option(name, errors) for name, errors in lines.items())


def _explain_option(name: str, errors: list[Any]) -> str:
    flag = "--dataset" if name == _DATASETS else f"--{name.replace('_', '-')}"
    if errors[0]["type"] == "extra_forbidden":
        return f"{name}: there is no such option"
    # An option that accepts a number or a word has one error for each type.
    expected = ", or ".join(details["msg"].removeprefix("Value error, ") for details in errors)
    return (
        f"{flag} (or {ENVIRONMENT_PREFIX}{name.upper()}, or {name} in the settings file): "
        f"{expected.replace(', or Input should be', ', or')}, not {errors[0]['input']!r}"
    )
