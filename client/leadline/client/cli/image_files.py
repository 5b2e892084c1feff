"""Finds the image files that a command line names, directly or by folder."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})

# Opening such a file may block, or reading it may never end.
_SPECIAL = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def image_paths(paths: Sequence[Path]) -> Sequence[Path]:
    """Checks that the paths are files or folders, and that each folder has images."""
    for path in paths:
        kind = next((name for test, name in _SPECIAL if test(path.stat().st_mode)), None)
        if kind:
            raise click.BadParameter(
                f"{path} is {kind}, not an image file or a folder: write its contents to a file"
            )
        if path.is_dir() and next(iter(ImageFiles([path])), None) is None:
            raise click.UsageError(f"there is no PNG or JPEG file in {path}")
    return paths


class ImageFiles:
    """The given files, and the image files in and below the given folders.

    Yields them in the given order, and in a folder by path. In folders it skips
    files not named .png or .jpg, and links to folders, which may be circular.
    Iterate over it once.

    Attributes:
        skipped: the number of files skipped so far.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        on_unreadable: Callable[[Path, OSError], None] | None = None,
    ) -> None:
        """Searches `paths`, and calls `on_unreadable` for each folder that cannot be read."""
        self.skipped = 0
        self._paths = paths
        self._on_unreadable = on_unreadable

    def __iter__(self) -> Iterator[Path]:
        for path in self._paths:
            if path.is_dir():
                yield from self._below(path)
            else:
                yield path

    def _below(self, folder: Path) -> Iterator[Path]:
        # A stack, because folders may be nested deeper than Python's recursion limit.
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
                self.skipped += 1

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return iter(sorted(entries, key=lambda entry: entry.name))
        except OSError as error:
            if self._on_unreadable is not None:
                self._on_unreadable(folder, error)
            return iter(())
