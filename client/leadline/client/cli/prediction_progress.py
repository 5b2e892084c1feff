"""Shows the progress and the errors of a run of predictions on standard error."""

import os
import sys
from collections.abc import Callable
from typing import Self

import click


class Progress:
    """Prints the notes of a run; subclasses also show its progress."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def advance(self) -> None:
        """Counts an image."""

    def note(self, text: str) -> None:
        """Prints a line."""
        click.echo(text, err=True)


class BarProgress(Progress):
    """A progress bar with images per second."""

    def __init__(self, total: int) -> None:
        """Shows a run of this number of images."""
        from rich import progress  # noqa: PLC0415
        from rich.console import Console  # noqa: PLC0415 - only a terminal needs it

        self._progress = progress.Progress(
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("images", markup=False),
            progress.TextColumn("{task.fields[speed]}", markup=False),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True, highlight=False, markup=False, emoji=False),
            transient=True,
        )
        self._task = self._progress.add_task("", total=total, speed="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def advance(self) -> None:
        """Moves the bar by an image."""
        speed = self._progress.tasks[0].speed
        self._progress.update(self._task, advance=1, speed=f"{speed:,.0f}/s" if speed else "")

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        self._progress.console.print(text, soft_wrap=True)


def make_progress(count: Callable[[], int], *, shares_terminal: bool) -> Progress:
    """A bar on a terminal, unless rows share the terminal; only a bar calls `count`."""
    watched = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    if watched and not (shares_terminal and sys.stdout.isatty()):
        return BarProgress(count())
    return Progress()
