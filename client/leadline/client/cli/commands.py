"""The kinds of command and of group that `leadline` has: with examples and suggestions."""

from collections.abc import Sequence
from typing import Any

import click

from leadline.client._text import did_you_mean

_HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


class _Suggesting(click.Command):
    """Names the option that a wrong one is likely to mean."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the options."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            known = [flag for one in self.params for flag in (*one.opts, *one.secondary_opts)]
            flags = [flag for flag in known if flag.startswith("--")]
            meant = did_you_mean(error.option_name, flags)
            raise click.UsageError(f"No such option: {error.option_name}.{meant}", ctx) from None


class Command(_Suggesting):
    """A command with examples, which its help shows last."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **options: Any) -> None:
        options.setdefault("context_settings", _HELP_OPTIONS)
        super().__init__(*arguments, **options)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Shows the examples."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Examples"):
            for example in self.examples:
                # Not wrapped: they are there to be copied.
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


class Group(_Suggesting, click.Group):
    """A group of such commands, which names the command that a wrong one is likely to mean."""

    command_class = Command

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.setdefault("context_settings", _HELP_OPTIONS)
        super().__init__(*arguments, **options)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments begin with."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            ctx.fail(f"No such command: {args[0]}.{did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)
