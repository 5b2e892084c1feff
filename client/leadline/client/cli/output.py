"""What a command prints, and where.

For people: text on stdout. With `--json`: each message of the service as one
JSON line on stdout, and nothing else there; what is for people goes to stderr.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click
from google.protobuf.json_format import MessageToDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.message import Message
    from rich.console import Console

# Where stdout is no terminal, rich would break lines at 80 columns.
_UNLIMITED = 10_000


class Output:
    """Prints messages and text.

    Attributes:
        as_json: whether messages are printed as JSON lines.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def message(self, message: Message) -> None:
        """Prints a message as a JSON line, under its proto field names, defaults included.

        The fields come in the order of the contract, so that lines can be compared.
        """
        values = MessageToDict(
            message,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        self.json(_ordered(values, message.DESCRIPTOR))

    def json(self, values: dict[str, Any]) -> None:
        """Prints what is no message as a JSON line."""
        click.echo(json.dumps(values))

    def text(self, text: str = "") -> None:
        """Prints a line for people."""
        click.echo(text, err=self.as_json)

    def note(self, text: str) -> None:
        """Prints a line for people that is no result, on stderr in any case."""
        click.echo(text, err=True)

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Prints a table; columns whose heading begins with "#" hold numbers."""
        from rich import box  # noqa: PLC0415 - not every command draws
        from rich.table import Table  # noqa: PLC0415

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in headings:
            number = heading.startswith("#")
            table.add_column(
                heading.removeprefix("#"), justify="right" if number else "left", no_wrap=number
            )
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    @cached_property
    def console(self) -> Console:
        """A console for people."""
        from rich.console import Console  # noqa: PLC0415 - not every command draws

        console = Console(stderr=self.as_json, highlight=False, markup=False, emoji=False)
        if not console.is_terminal:
            console.width = _UNLIMITED
        return console


def _ordered(values: dict[str, Any], descriptor: Any) -> dict[str, Any]:
    # protobuf puts the fields that have their defaults last. Its descriptors have two types, one
    # in Python and one in C, which nothing unites.
    return {
        field.name: _ordered_field(values[field.name], field)
        for field in descriptor.fields
        if field.name in values
    }


def _ordered_field(value: Any, field: Any) -> Any:
    if isinstance(value, list):
        return [_ordered_field(one, field) for one in value]
    # A message of protobuf's own, such as a time, is no object in JSON.
    of_protobuf = field.message_type and field.message_type.file.package == "google.protobuf"
    if field.message_type is None or of_protobuf or not isinstance(value, dict):
        return value
    return _ordered(value, field.message_type)
