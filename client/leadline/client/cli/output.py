"""Prints the output of commands.

By default, prints text on stdout. With `--json`, prints each message of the service
as one JSON line on stdout, and all other text on stderr.
"""

from __future__ import annotations

import json
import os
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from google.protobuf.json_format import MessageToDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.message import Message
    from rich.console import Console

# Without a terminal, rich would break lines at 80 columns.
_UNLIMITED = 10_000

_RESOURCE_NAME = re.compile(r"(jobs|models|sweeps)/")

# Longer words, such as the path of a file, may be broken.
_LONGEST_WORD = 16

# The number of characters between two columns, and at both edges together.
_GAP = 2


class Output:
    """Prints messages and text.

    Attributes:
        as_json: whether messages are printed as JSON lines.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def message(self, message: Message) -> None:
        """Prints a message as a JSON line with its fields in a fixed order."""
        self.json(json_values(message))

    def show(self, message: Message, text: str) -> None:
        """Prints a message as a JSON line, or else a text about it."""
        if self.as_json:
            self.message(message)
        else:
            self.text(text)

    def json(self, values: dict[str, Any]) -> None:
        """Prints plain values as a JSON line."""
        click.echo(json.dumps(values))

    def text(self, text: str = "") -> None:
        """Prints a line for people."""
        click.echo(text, err=self.as_json)

    def note(self, text: str) -> None:
        """Prints a line for people on stderr, because it is not a result."""
        click.echo(text, err=True)

    @property
    def is_live(self) -> bool:
        """Whether lines can be redrawn: on a terminal that is not dumb."""
        return self.console.is_terminal and os.environ.get("TERM") != "dumb"

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Prints a table; columns whose heading begins with "#" hold numbers.

        On a narrow terminal, text wraps. If that is not enough, the last columns are omitted.
        Numbers and resource names are never cut.
        """
        from rich import box  # noqa: PLC0415 - not every command draws
        from rich.table import Table  # noqa: PLC0415

        columns = [
            _Column(heading.removeprefix("#"), cells, heading.startswith("#"))
            for heading, cells in zip(
                headings, list(zip(*rows, strict=True)) or [()] * len(headings), strict=True
            )
        ]
        widths = _fitting_widths(columns, self.console.width)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for column, width in zip(columns, widths, strict=False):
            table.add_column(
                column.wrapped_heading(width),
                justify="right" if column.is_number else "left",
                no_wrap=column.is_number,
                overflow="fold",
                width=width,
            )
        for row in zip(*(column.cells for column in columns[: len(widths)]), strict=True):
            table.add_row(*row)
        # The table is wider than the terminal only if its first column is.
        self.console.print(table, width=max(self.console.width, widths[0] + _GAP))
        if len(widths) < len(columns):
            rest = ", ".join(column.heading for column in columns[len(widths) :])
            self.text(f"Not shown, for lack of width: {rest}.")

    @cached_property
    def console(self) -> Console:
        """The console for text."""
        from rich.console import Console  # noqa: PLC0415 - not every command draws

        console = Console(stderr=self.as_json, highlight=False, markup=False, emoji=False)
        if not console.is_terminal:
            console.width = _UNLIMITED
        return console


class _Column(NamedTuple):
    """A column of a table."""

    heading: str
    cells: Sequence[str]
    is_number: bool

    @property
    def longest_width(self) -> int:
        """The width in characters without wrapping."""
        return max(map(len, (self.heading, *self.cells)))

    @property
    def least_width(self) -> int:
        """The width in characters with wrapping between words."""
        whole = [text for text in self.cells if self.is_number or _RESOURCE_NAME.match(text)]
        words = [word for text in (self.heading, *self.cells) for word in text.split()]
        return max(0, *map(len, whole), *(min(len(word), _LONGEST_WORD) for word in words))

    def wrapped_heading(self, width: int) -> str:
        """The heading, with line breaks if needed: rich does not break columns of numbers."""
        return self.heading if len(self.heading) <= width else self.heading.replace(" ", "\n")


def _fitting_widths(columns: Sequence[_Column], width: int) -> list[int]:
    """The widths of the columns that fit, from the left; at least the first."""
    widths: list[int] = []
    left = width
    for column in columns:
        left -= column.least_width + _GAP
        if widths and left < 0:
            left += column.least_width + _GAP
            break
        widths.append(column.least_width)
    for place in range(len(widths)):
        more = min(columns[place].longest_width - widths[place], max(left, 0))
        widths[place] += more
        left -= more
    return widths


def json_values(message: Message) -> dict[str, Any]:
    """A message as a dict of its proto field names, in their order, including defaults."""
    values = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return _ordered(values, message.DESCRIPTOR)


def _ordered(values: dict[str, Any], descriptor: Any) -> dict[str, Any]:
    # Sorts the fields, because protobuf puts those with defaults last. Its descriptors have two
    # types, one in Python and one in C, without a common base.
    return {
        field.name: _ordered_field(values[field.name], field)
        for field in descriptor.fields
        if field.name in values
    }


def _ordered_field(value: Any, field: Any) -> Any:
    if isinstance(value, list):
        return [_ordered_field(item, field) for item in value]
    # A well-known type, such as a Timestamp, is not an object in JSON.
    is_well_known = field.message_type and field.message_type.file.package == "google.protobuf"
    if field.message_type is None or is_well_known or not isinstance(value, dict):
        return value
    return _ordered(value, field.message_type)
