"""`leadline serve`: reads the options, then runs the service until it is told to stop."""

import asyncio
import ctypes
import gc
import os
import resource
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import uvloop
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from leadline.models.simd.instruction_set import UnsupportedInstructionSetError, instruction_set
from leadline.server.application import ServingError, StartupError, serve
from leadline.server.settings import ENVIRONMENT_PREFIX, Settings, load_settings
from leadline.server.telemetry.logs import configure_logs

_USAGE_ERROR = 2
_FAILURE = 1

# glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 32 << 20

# A quarter of what kernels allow by default, also where a limit is none.
_ENOUGH_DESCRIPTORS = 1 << 18

# The one option that is not a flag of its own name: `--dataset NAME=SOURCE`,
# as often as there are datasets.
_DATASETS = "datasets"


def main(arguments: list[str]) -> int:
    """Runs the server; returns the process's exit status.

    0 after SIGTERM or SIGINT, 1 where the server could not start or go on, 2 where
    an option is wrong.
    """
    try:
        result = _command().main(arguments, prog_name="leadline serve", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    return int(result or 0)


def _command() -> click.Command:
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
        "serve",
        callback=_run,
        params=list(options),
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        help="Run the service. Every option can also be set by its environment variable, "
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


def _run(config: Path | None, **flags: Any) -> int:
    settings = _settings(config, flags)
    _check_instruction_set()
    configure_logs(level=settings.log_level, style=settings.log_format)
    # The modules stay to the end. To look through them for garbage again and
    # again would stop the event loop for a tenth of a second each time.
    gc.collect()
    gc.freeze()
    _allow_descriptors()
    _keep_memory()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except (StartupError, ServingError) as error:
        sys.stderr.write(f"leadline serve: {error}\n")
        return _FAILURE
    return 0


def _check_instruction_set() -> None:
    """Refuses a wrong variable now: the workers, who inherit it, would all end by it."""
    try:
        instruction_set()
    except UnsupportedInstructionSetError as error:
        raise click.UsageError(str(error)) from error


def _allow_descriptors() -> None:
    """Raises the limit on open files to what is allowed: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _keep_memory() -> None:
    """Has glibc keep what is freed, up to a bound.

    Large messages come one after another. It would give the memory of each
    back to the kernel, which clears it page by page for the next.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _settings(config: Path | None, flags: dict[str, Any]) -> Settings:
    datasets = _datasets(flags.pop(_DATASETS))
    given = {name: value for name, value in flags.items() if value is not None}
    if datasets:
        given[_DATASETS] = datasets
    try:
        return load_settings(given, config)
    except ValidationError as error:
        raise click.UsageError("\n".join(_explain(one) for one in error.errors())) from error
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
        datasets[name] = os.path.expanduser(source)  # noqa: PTH111 - a source may be no path
    return datasets


def _explain(error: Any) -> str:
    name = str(error["loc"][0]) if error["loc"] else "settings"
    flag = "--dataset" if name == _DATASETS else f"--{name.replace('_', '-')}"
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such option"
    return (
        f"{flag} (or {ENVIRONMENT_PREFIX}{name.upper()}, or {name} in the settings file): "
        f"{error['msg']}, not {error['input']!r}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
