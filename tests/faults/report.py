"""The figures as a table in Markdown, and the machine of the measurements."""

from collections.abc import Iterable

from faults.setting import LONG, SEED, Figure
from support.machine import markdown_table, taken_on

_HEADINGS = ("bar", "required", "measured", "ok")


def table(figures: Iterable[Figure]) -> str:
    """Returns the table, ready for docs/reliability.md."""
    return markdown_table(_HEADINGS, map(_row, figures))


def environment(scale: str, seconds: float) -> str:
    """Returns the command, the machine and the date."""
    return f"\n`{_command(scale)}` (seed {SEED}, {seconds / 60:.1f} minutes), {taken_on()}.\n"


def _row(figure: Figure) -> tuple[str, str, str, str]:
    return figure.bar, figure.required, figure.measured, "yes" if figure.ok else "**no**"


def _command(scale: str) -> str:
    return "make faults" if scale == LONG.name else f"python tests/faults/run.py --scale {scale}"
