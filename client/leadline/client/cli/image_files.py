"""The image files in what a command line names."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})

# What opening waits for, or never ends to read.
_SPECIAL = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def image_paths(
    context: click.Context, parameter: click.Parameter, value: Sequence[Path]
) -> Sequence[Path]:
    """Checks that what is named is files and folders, and that each folder has images."""
    del context, parameter
    for path in value:
        kind = next((name for test, name in _SPECIAL if test(path.stat().st_mode)), None)
        if kind:
            raise click.BadParameter(
                f"{path} is {kind}, not an image file or a folder: write what it gives to a file"
            )
        if path.is_dir() and next(iter(ImageFiles([path])), None) is None:
            raise click.UsageError(f"there is no PNG or JPEG file in {path}")
    return value


class ImageFiles:
    """The files that are named, and those in and below the folders that are.

    In the order of the names, in a folder in that of its paths. In folders,
    what is no PNG or JPEG file by its name is passed over, as are links to
    folders, which may lead in circles. To be gone through once.

    Attributes:
        passed_over: how many files have been so far.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        on_unreadable: Callable[[Path, OSError], None] | None = None,
    ) -> None:
        """Looks into `paths`; `on_unreadable` is told of each folder that cannot be read."""
        self.passed_over = 0
        self._paths = paths
        self._on_unreadable = on_unreadable

    def __iter__(self) -> Iterator[Path]:
        for path in self._paths:
            if path.is_dir():
                yield from self._below(path)
            else:
                yield path

    def _below(self, folder: Path) -> Iterator[Path]:
        # No recursion: folders may lie deeper than Python's calls may.
        open_folders = [self._entries(folder)]
        while open_folders:
            entry = next(open_folders[-1], None)
            if entry is None:
                open_folders.pop()
            elif entry.is_dir(follow_symlinks=False):
                open_folders.append(self._entries(Path(entry.path)))
            elif Path(entry.name).suffix.lower() in _SUFFIXES and entry.is_file():
                yield Path(entry.path)
            else:
                self.passed_over += 1

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return iter(sorted(entries, key=lambda entry: entry.name))
        except OSError as error:
            if self._on_unreadable is not None:
                self._on_unreadable(folder, error)
            return iter(())
