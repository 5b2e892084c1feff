"""The server's own modules, for the commands that run on its machine."""

import importlib
from types import ModuleType

import click


def server_module(name: str) -> ModuleType:
    """Loads a module of `leadline.server`, which the client does without elsewhere.

    Raises:
        click.ClickException: a package that it needs is missing.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("leadline."):
            raise  # a fault of ours, which another package does not mend
        raise click.ClickException(
            f"the server needs the package {error.name}: pip install 'leadline[server]'"
        ) from error
