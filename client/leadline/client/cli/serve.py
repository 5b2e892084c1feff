"""`leadline serve`."""

import importlib
from collections.abc import Sequence

import click

from leadline.client.cli.commands import Command


@click.command(
    cls=Command,
    examples=(
        "leadline serve",
        "leadline serve --port 50051 --data-dir /var/lib/leadline",
    ),
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: Sequence[str]) -> int:
    """Start a server; `leadline serve --help` shows its options."""
    try:
        server = importlib.import_module("leadline.server.main")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("leadline."):
            raise  # a fault of ours, which another package does not mend
        raise click.ClickException(
            f"the server needs the package {error.name}: pip install 'leadline[server]'"
        ) from error
    return int(server.main(list(arguments)))
