"""`leadline tokens`, which changes a file on the server's machine and calls no server."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import click

from leadline.client.cli.commands import Group, checked
from leadline.client.cli.job_options import duration
from leadline.client.cli.options import option_group
from leadline.client.cli.output import Output
from leadline.client.cli.server import server_module


class _Place(NamedTuple):
    path: Path
    output: Output


def _place(*, as_json: bool, **options: str | None) -> _Place:
    """Where a server with these options, and this environment, has its tokens."""
    arguments = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in options.items()
        if value is not None
    ]
    command = server_module("leadline.server.command_line").settings_command(
        "tokens", lambda settings: settings.tokens_path, help_text=""
    )
    path = command.main(arguments, prog_name="leadline tokens", standalone_mode=False)
    return _Place(path, Output(as_json=as_json))


_place_options = option_group(
    "place",
    ("data_dir", "tokens_file", "config", "as_json"),
    click.option("--data-dir", metavar="DIR", help="The data directory of the server."),
    click.option("--tokens-file", metavar="FILE", help="The server's tokens file, if it is set."),
    click.option("--config", metavar="FILE", help="The settings file of the server."),
    click.option("--json", "as_json", is_flag=True, help="Print each token as one JSON line."),
    build=_place,
)


@click.group(cls=Group)
def tokens() -> None:
    """Create, list and revoke the tokens of a server's callers.

    Run it on the server's machine, as the user of the server, with the server's --data-dir. A
    running server notices each change within a second. Needs the extra `server`.
    """


@tokens.command(
    examples=(
        "leadline tokens create --name ci --role trainer --expires 90d > ci.token",
        "leadline tokens create --name prometheus --role viewer --data-dir /var/lib/leadline",
    )
)
@click.option("--name", required=True, help="Whose token it is: the owner of what it creates.")
@click.option(
    "--role",
    required=True,
    type=click.Choice(["predictor", "viewer", "trainer", "admin"]),
    help="What its holder may do; each role includes those before it.",
)
@click.option(
    "--expires",
    callback=checked(duration),
    metavar="DURATION",
    help="How long it is valid: 12h, 90d.  [without end]",
)
@_place_options
def create(place: _Place, *, name: str, role: str, expires: timedelta | None) -> None:
    """Create a token, and print it: nothing can show it again.

    The first token of a server closes it: from then on, every caller needs one. A name may have
    several tokens, so that a new one can be rolled out before the old one is revoked.
    """
    with _explained() as module:
        secret, token = module.create_token(place.path, name=name, role=role, lifetime=expires)
    if place.output.as_json:
        place.output.json({"token": secret, **_values(token)})
    else:
        click.echo(secret)
    place.output.note(
        f"Token {token.id} of {name}, {role}, valid {_until(token)}. Keep it safe: {place.path} "
        "has only its hash."
    )


@tokens.command(
    name="list",
    examples=(
        "leadline tokens list --data-dir /var/lib/leadline",
        "leadline tokens list --json | jq -r 'select(.name == \"ci\").id'",
    ),
)
@_place_options
def list_tokens(place: _Place) -> None:
    """List the tokens, expired ones too, without what would let anyone use them."""
    with _explained() as module:
        try:
            listed = module.read_tokens(place.path)
        except FileNotFoundError:
            raise click.ClickException(f"there is no {place.path}: create a token") from None
    if place.output.as_json:
        for token in listed:
            place.output.json(_values(token))
        return
    place.output.table(
        ("id", "name", "role", "created", "valid"),
        [
            (token.id, token.name, token.role, _local(token.created), _until(token))
            for token in listed
        ],
    )


@tokens.command(
    examples=(
        "leadline tokens revoke 3f9c21b07e",
        "leadline tokens revoke $(leadline tokens list --json | jq -r .id)",
    )
)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@_place_options
def revoke(place: _Place, *, ids: Sequence[str]) -> None:
    """Revoke tokens by their IDs; their open streams end within two seconds.

    Revokes all or, if one is not there, none.
    """
    with _explained() as module:
        revoked = module.revoke_tokens(place.path, ids)
    for token in revoked:
        if place.output.as_json:
            place.output.json(_values(token))
        else:
            place.output.text(f"revoked {token.id} of {token.name}, {token.role}")


@contextmanager
def _explained() -> Iterator[Any]:
    """Yields the server's module of tokens, and reports its errors as wrong usage."""
    module = server_module("leadline.server.access.tokens")
    try:
        yield module
    except (ValueError, OSError, module.AccessFileError) as error:
        raise click.ClickException(str(error)) from error


def _values(token: Any) -> dict[str, Any]:
    values: dict[str, Any] = token.model_dump(mode="json", exclude={"sha256"})
    return values


def _until(token: Any) -> str:
    if token.expires is None:
        return "without end"
    tense = "until" if token.expires > datetime.now(UTC) else "no more, since"
    return f"{tense} {_local(token.expires)}"


def _local(time: datetime) -> str:
    return f"{time.astimezone():%Y-%m-%d %H:%M}"
