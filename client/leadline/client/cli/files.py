"""Files appear complete or not at all."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from leadline.client.cli.commands import checked


def out_option(
    *suffixes: str, text: str, required: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds --out: a file whose name must have one of these suffixes, before any call is made."""

    def check(path: Path) -> Path:
        if path.suffix.lower() not in suffixes:
            raise click.BadParameter(f"{path} ends with none of {', '.join(suffixes)}")
        return path

    kind = click.Path(dir_okay=False, path_type=Path)
    return click.option("--out", required=required, type=kind, callback=checked(check), help=text)


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` if the block succeeds.

    Readers see the old file or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Keeps the suffix, which names the format.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    # The name is known before the file exists, so that Ctrl-C at any time removes it.
    try:
        temporary.touch(mode=0o600, exist_ok=False)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    # The only way to read it is to set it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
