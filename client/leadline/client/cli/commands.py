"""Commands with examples, and groups that suggest similar commands."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from leadline.client._text import did_you_mean

_HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


@contextmanager
def _suggesting_options(command: click.Command, ctx: click.Context) -> Iterator[None]:
    """Suggests a similar option for an unknown one."""
    try:
        yield
    except click.NoSuchOption as error:
        names = [
            name for option in command.params for name in (*option.opts, *option.secondary_opts)
        ]
        flags = [name for name in names if name.startswith("--")]
        hint = did_you_mean(error.option_name, flags)
        if isinstance(command, click.Group):
            hint += " Options of a command follow its name."
        raise click.UsageError(f"No such option: {error.option_name}.{hint}", ctx) from None


class Command(click.Command):
    """A command whose help ends with examples."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **options: Any) -> None:
        options["context_settings"] = _HELP_OPTIONS | options.get("context_settings", {})
        super().__init__(*arguments, **options)
        self.examples = tuple(examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the options."""
        with _suggesting_options(self, ctx):
            return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Shows the examples."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Examples"):
            for example in self.examples:
                # Not wrapped, so that users can copy them.
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


def command(*examples: str, **options: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A decorator that makes a function a command with these examples."""
    return click.command(cls=Command, examples=examples, **options)


def checked(check: Callable[[Any], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """The callback of an option: applies `check` to a value, if one is given."""
    return lambda _context, _option, value: None if value is None else check(value)


class Group(click.Group):
    """A group of such commands, which suggests a similar command for an unknown one."""

    command_class = Command

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.setdefault("context_settings", _HELP_OPTIONS)
        super().__init__(*arguments, **options)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the options."""
        with _suggesting_options(self, ctx):
            return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name first."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            ctx.fail(f"No such command: {args[0]}.{did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)
