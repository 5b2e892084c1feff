"""The commands and their options."""

from collections.abc import Iterator

import click

from leadline.client.cli.app import COMMANDS, leadline
from leadline.server.settings import Settings

# Commands that take every option of the server; operations.md lists these.
TAKE_SETTINGS = {"serve", "doctor", "compact"}


def resolve(words: tuple[str, ...]) -> tuple[click.Command, tuple[str, ...]]:
    """Returns the command at the start of the words, and the remaining words."""
    command = leadline.get_command(click.Context(leadline), words[0])
    if isinstance(command, click.Group):
        return command.commands[words[1]], words[2:]
    assert command is not None, f"there is no command {words[0]}"
    return command, words[1:]


def flags_of(command: click.Command) -> set[str]:
    """Returns all flags of a command."""
    if command.name in TAKE_SETTINGS:
        names = {name.replace("_", "-") for name in Settings.model_fields}
        flags = {f"--{name}" for name in names} | {"--dataset", "--config", "--no-reflection"}
        return flags | ({"--json", "--help"} if command.name != "serve" else set())
    options = [one for one in command.params if isinstance(one, click.Option)]
    return {"--help"}.union(*([*option.opts, *option.secondary_opts] for option in options))


def leaf_commands() -> Iterator[tuple[str, ...]]:
    """Returns all commands by the words that call them."""
    for name in COMMANDS:
        command = leadline.get_command(click.Context(leadline), name)
        if isinstance(command, click.Group):
            yield from ((name, inner) for inner in command.commands)
        else:
            yield (name,)
