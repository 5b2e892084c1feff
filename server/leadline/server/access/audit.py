"""The audit log: who did what to which resource, as JSON lines in files that rotate by size.

A line is handed to the operating system within milliseconds, so it survives the end of the
process, and synced to the disk within a second. A caller never waits for the log: if the disk is
full, lines wait in a bounded queue, and those beyond it are counted as lost.
"""

import contextlib
import json
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

_LOG = structlog.get_logger(__name__)

# Lines that wait to be written: some megabytes.
_MAX_WAITING = 10_000

# Lines of a single write.
_MOST_AT_ONCE = 1_000

_SYNC_SECONDS = 1.0
_RETRY_SECONDS = 1.0

_READ_BYTES = 1 << 16

# Denied calls without an identity, of which strangers can make any number: they must not push
# what others did out of the log.
_STRANGERS_PER_SECOND = 100


class RotatingFile:
    """A file of lines that is renamed to PATH.1 before it would exceed a size.

    Older files become PATH.2 and so on; the oldest is removed.
    """

    def __init__(self, path: Path, *, max_bytes: int, max_files: int) -> None:
        """Makes a file that `write` opens.

        Args:
            path: the newest file.
            max_bytes: the most bytes of a file, unless a single line is longer.
            max_files: how many older files are kept, at least 1.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._file: int | None = None
        self._size = 0

    def write(self, lines: Sequence[bytes]) -> int:
        """Appends the first of these lines, as many as fit; returns how many.

        Raises:
            OSError: nothing was written.
        """
        if self._file is None:
            self._open()
        if self._size and self._size + len(lines[0]) > self._max_bytes:
            self._rotate()
        count, end = 1, self._size + len(lines[0])
        while count < len(lines) and end + len(lines[count]) <= self._max_bytes:
            end += len(lines[count])
            count += 1
        self._append(b"".join(lines[:count]))
        return count

    def sync(self) -> None:
        """Syncs what was written to the disk.

        Raises:
            OSError: the disk failed.
        """
        if self._file is not None:
            os.fsync(self._file)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(
            self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            self._size = _end_of_last_line(file)
            os.ftruncate(file, self._size)  # half a line, from a process that was killed
        except OSError:
            os.close(file)
            raise
        self._file = file

    def _append(self, data: bytes) -> None:
        assert self._file is not None  # noqa: S101 - `write` opens it
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            os.ftruncate(self._file, self._size)  # works on a full disk, too
            raise
        self._size += len(data)

    def _rotate(self) -> None:
        self.sync()
        self.close()
        for number in range(self._max_files - 1, 0, -1):
            older = _older(self._path, number)
            if older.exists():
                older.replace(_older(self._path, number + 1))
        self._path.replace(_older(self._path, 1))
        self._open()


class AuditLog:
    """Writes entries in a thread.

    Attributes:
        written: how many entries were written.
        lost: how many were not, because the disk was full for too long.
    """

    def __init__(self, path: Path, *, max_bytes: int, max_files: int) -> None:
        """Starts the thread; arguments as for `RotatingFile`."""
        self.written = 0
        self.lost = 0
        self._file = RotatingFile(path, max_bytes=max_bytes, max_files=max_files)
        self._path = path
        self._waiting: queue.Queue[Mapping[str, Any] | None] = queue.Queue(_MAX_WAITING)
        self._strangers: Counter[str] = Counter()  # in this second, by event
        self._second = self._suppressed = 0
        self._closing = threading.Event()
        self._failing = False
        self._synced = time.monotonic()
        self._is_synced = True
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def record(self, event: str, **values: Any) -> None:
        """Records an event; returns at once. None, empty texts and empty lists are left out.

        Args:
            event: "call", "http", "login" or "reload".
            **values: who, role, peer, method, resources, owner, code, reason: never what a
                caller has sent, except names of resources in their exact form.
        """
        if values.get("denied") and not values.get("who"):
            second = int(time.monotonic())
            if second != self._second:
                self._second, self._strangers = second, Counter()
            self._strangers[event] += 1
            if self._strangers[event] > _STRANGERS_PER_SECOND:
                self._suppressed += 1
                return
            values["suppressed"], self._suppressed = self._suppressed or None, 0
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        kept = {name: value for name, value in values.items() if value not in (None, "", [], ())}
        try:
            self._waiting.put_nowait({"time": now, "event": event, **kept})
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Writes what waits, and ends the thread."""
        self._closing.set()
        with contextlib.suppress(queue.Full):  # then the thread does not wait for an entry
            self._waiting.put_nowait(None)
        self._thread.join()

    def _run(self) -> None:
        while not (self._closing.is_set() and self._waiting.empty()):
            self._write(self._next_lines())
            self._sync_if_due()
        self._sync()
        self._file.close()

    def _next_lines(self) -> list[bytes]:
        """The lines that wait; waits for one, but not so long that a sync is late."""
        entries = []
        with contextlib.suppress(queue.Empty):
            entries.append(self._waiting.get(timeout=None if self._is_synced else _SYNC_SECONDS))
            while len(entries) < _MOST_AT_ONCE:
                entries.append(self._waiting.get_nowait())
        return [_line(entry) for entry in entries if entry is not None]

    def _write(self, lines: list[bytes]) -> None:
        while lines:
            try:
                count = self._file.write(lines)
            except OSError as error:
                self._report_failure(error)
                if self._closing.is_set():
                    self.lost += len(lines)
                    return
                self._closing.wait(_RETRY_SECONDS)
                continue
            if self._failing:
                self._failing = False
                _LOG.info("the audit log is written again", lost=self.lost)
            self.written += count
            self._is_synced = False
            lines = lines[count:]

    def _sync_if_due(self) -> None:
        if time.monotonic() - self._synced >= _SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        self._synced, self._is_synced = time.monotonic(), True
        try:
            self._file.sync()
        except OSError as error:
            self._report_failure(error)

    def _report_failure(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            _LOG.error("the audit log cannot be written", path=str(self._path), why=error.strerror)


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _end_of_last_line(file: int) -> int:
    """The size of a file without an incomplete last line."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - _READ_BYTES)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def path_of_process(path: Path, number: int) -> Path:
    """The audit log of a serving process; each has its own, that of the main process is `path`."""
    return path.with_name(f"{path.stem}.process{number}{path.suffix}") if number else path
