"""`leadline serve`."""

from collections.abc import Sequence

import click

from leadline.client.cli.commands import Command
from leadline.client.cli.server_packages import server_module


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
    return int(server_module("leadline.server.main").main(list(arguments)))
