"""`leadline audit`, which reads files on the server's machine and calls no server."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click

from leadline.client.cli.commands import checked, command
from leadline.client.cli.job_options import duration
from leadline.client.cli.options import option_group
from leadline.client.cli.output import Output
from leadline.client.cli.server import server_module

_HEADINGS = ("time", "who", "method", "resources", "outcome", "from")


def _since(value: str) -> datetime:
    """The start of a time range: a duration before now, or a time."""
    if value[:4].isdigit() and "-" in value:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not a time such as 2026-05-01T12:00") from error
        return moment.astimezone(UTC)
    before: datetime = datetime.now(UTC) - duration(value)
    return before


class _Filters(NamedTuple):
    """Which entries are shown."""

    who: str | None
    since: datetime | None
    resource: str | None
    denied: bool

    def accept(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry is shown."""
        return (
            (self.who is None or entry.get("who", "") == self.who)
            and (self.since is None or datetime.fromisoformat(entry["time"]) >= self.since)
            and (self.resource is None or self.resource in entry.get("resources", ()))
            and (not self.denied or entry.get("denied", False))
        )


_filters = option_group(
    "filters",
    _Filters._fields,
    click.option("--who", metavar="NAME", help="Only what this identity did."),
    click.option(
        "--since",
        callback=checked(_since),
        metavar="TIME",
        help="Only what happened since then: 2026-05-01T12:00, or 90m, 2h, 7d ago.",
    ),
    click.option(
        "--resource", metavar="NAME", help="Only what concerns jobs/ID, sweeps/ID or models/ID."
    ),
    click.option("--denied", is_flag=True, help="Only what was not allowed."),
    build=_Filters,
)


def _path(**options: str | None) -> Path:
    """The audit log of a server with these options, and this environment."""
    arguments = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in options.items()
        if value is not None
    ]
    settings_command = server_module("leadline.server.command_line").settings_command
    parse = settings_command("audit", lambda settings: settings.audit_path, help_text="")
    path: Path = parse.main(arguments, prog_name="leadline audit", standalone_mode=False)
    return path


_place = option_group(
    "path",
    ("data_dir", "audit_log", "config"),
    click.option("--data-dir", metavar="DIR", help="The data directory of the server."),
    click.option("--audit-log", metavar="FILE", help="The server's audit log, if it is set."),
    click.option("--config", metavar="FILE", help="The settings file of the server."),
    build=_path,
)


@command(
    "leadline audit --since 7d --who ci",
    "leadline audit --denied --follow --data-dir /var/lib/leadline",
    "leadline audit --resource jobs/phgcrktpjf --json | jq -r .method",
)
@_filters
@click.option("--follow", is_flag=True, help="Wait for more, until Ctrl-C.")
@_place
@click.option("--json", "as_json", is_flag=True, help="Print each entry as one JSON line.")
def audit(*, path: Path, filters: _Filters, follow: bool, as_json: bool) -> None:
    """Show who did what on a server, from its audit log: the oldest first.

    Run it on the server's machine, as the user of the server, with the server's --data-dir. It
    also works while no server runs. Needs the extra `server`.
    """
    output = Output(as_json=as_json)
    entries = _entries(path, filters, follow=follow)
    if as_json:
        for entry in entries:
            output.json(entry)
    elif follow:
        for entry in entries:
            output.text("  ".join(_row(entry)))
    else:
        output.table(_HEADINGS, [_row(entry) for entry in entries])


def _entries(path: Path, filters: _Filters, *, follow: bool) -> Iterator[dict[str, Any]]:
    reader = server_module("leadline.server.access.audit_reader")
    try:
        for entry in reader.read_entries(path, follow=follow):
            if filters.accept(entry):
                yield entry
    except FileNotFoundError as error:
        raise click.ClickException(f"{error}: name the server's --data-dir") from error


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    moment = datetime.fromisoformat(entry["time"]).astimezone()
    method = entry.get("method", "").rpartition("/")[2]
    outcome = entry.get("code", "")
    if reason := entry.get("reason"):
        outcome += f" ({reason})"
    return (
        f"{moment:%Y-%m-%d %H:%M:%S}",
        entry.get("who", "-"),
        method or entry.get("event", "-"),
        ", ".join(entry.get("resources", ())) or "-",
        outcome or "-",
        entry.get("peer", "-"),
    )
