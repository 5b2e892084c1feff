"""`leadline version`."""

import json
from importlib.metadata import version as installed_version

import click

from leadline.client.cli.commands import Command


@click.command(
    cls=Command,
    examples=("leadline version",),
)
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON line.")
def version(*, as_json: bool) -> None:
    """Print the version."""
    number = installed_version("leadline")
    click.echo(json.dumps({"version": number}) if as_json else f"leadline {number}")
