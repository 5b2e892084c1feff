"""Reads audit logs, also while servers write and rotate them."""

import heapq
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any

_POLL_SECONDS = 0.25

Entry = dict[str, Any]


def read_entries(path: Path, *, follow: bool = False) -> Iterator[Entry]:
    """The entries of an audit log and of its older files, the oldest first.

    Args:
        path: the newest file of the main process; those of serving processes lie beside it.
        follow: whether to wait for more entries, forever; then processes are not merged by time.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no audit log {path}")
    others = sorted(path.parent.glob(f"{path.stem}.process*{path.suffix}"))
    with ExitStack() as stack:
        chains = [stack.enter_context(closing(_Chain(each))) for each in (path, *others)]
        entries = (chain.entries() for chain in chains)
        yield from heapq.merge(*entries, key=lambda entry: entry["time"])
        while follow:
            time.sleep(_POLL_SECONDS)
            for chain in chains:
                yield from chain.entries()


class _Chain:
    """A file and its older ones, read from the oldest to the newest without a gap."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._rest = b""
        self._time = ""

    def close(self) -> None:
        """Closes the open file."""
        self._open(None)

    def entries(self) -> Iterator[Entry]:
        """The entries since the last call."""
        while self._file is not None or self._open(self._oldest()):
            yield from self._read()
            newer = self._newer()
            if newer is None:
                return
            yield from self._read()  # what was written just before the file was renamed
            self._open(newer)

    def _read(self) -> Iterator[Entry]:
        assert self._file is not None  # noqa: S101 - `entries` opens it
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            entry = _parse(line) or {"time": self._time, "event": "damaged"}
            self._time = entry["time"]
            yield entry

    def _open(self, path: Path | None) -> bool:
        if self._file is not None:
            self._file.close()
        self._rest = b""
        self._file = None if path is None else path.open("rb")
        return path is not None

    def _files(self) -> list[Path]:
        """The existing files, the oldest first."""
        numbered = re.compile(rf"{re.escape(self._path.name)}\.(\d+)")
        older = {
            int(match[1]): path
            for path in self._path.parent.iterdir()
            if (match := numbered.fullmatch(path.name))
        }
        newest = [self._path] if self._path.exists() else []
        return [*(older[number] for number in sorted(older, reverse=True)), *newest]

    def _oldest(self) -> Path | None:
        return next(iter(self._files()), None)

    def _newer(self) -> Path | None:
        """The file after the open one; the oldest if that is removed; None if it is the newest."""
        assert self._file is not None  # noqa: S101 - `entries` opens it
        inode = os.fstat(self._file.fileno()).st_ino
        files = self._files()
        inodes = [path.stat().st_ino for path in files]
        if inode not in inodes:
            return files[0] if files else None
        place = inodes.index(inode)
        return files[place + 1] if place + 1 < len(files) else None


def _parse(line: bytes) -> Entry | None:
    """The entry of a line; None if the line is damaged."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("time"), str) else None
