"""Writes files atomically."""

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
    """Adds --out, a file with one of these suffixes; checks the name before any call."""

    def check(path: Path) -> Path:
        if path.suffix.lower() not in suffixes:
            raise click.BadParameter(f"{path} ends with none of {', '.join(suffixes)}")
        return path

    kind = click.Path(dir_okay=False, path_type=Path)
    return click.option("--out", required=required, type=kind, callback=checked(check), help=text)


@contextmanager
def appearing(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """Yields a temporary path, and renames it to `path` if the block succeeds.

    Readers see the old or the new file, never a part. The umask applies to `mode`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Keeps the suffix, because it determines the format.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    # Created within the block, so that Ctrl-C at any time removes the file.
    try:
        temporary.touch(mode=0o600, exist_ok=False)
        yield temporary
        temporary.chmod(mode & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    # The umask can only be read by setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
