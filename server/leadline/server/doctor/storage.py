"""Checks the data directory."""

import fcntl
import os
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import psutil

from leadline.models._files import write_atomically
from leadline.server.doctor.check import Check, Status
from leadline.server.memory import in_bytes
from leadline.server.scheduling.disk_floor import DiskFloor

# Each commit of the job store syncs the disk once, about ten times per epoch.
_SLOW_FSYNC_SECONDS = 0.02
_FSYNCS = 20
_BLOCK = bytes(4096)

# Decoded, CIFAR-10 needs 184 MB; the checkpoint of an epoch needs 0.2 MB.
_LITTLE_SPACE = 2 << 30
_NO_SPACE = 100 << 20

_NAME_ANOTHER = "name another folder with --data-dir"


def existing_part(folder: Path) -> Path:
    """Returns the folder, or its nearest existing parent."""
    absolute = folder.absolute()
    return next(part for part in (absolute, *absolute.parents) if os.path.lexists(part))


def check_data_dir(folder: Path) -> Check:
    """Checks that the folder is writable, or that a server can create it."""
    there = existing_part(folder)
    exists = there == folder.absolute()
    detail = {"path": str(folder.absolute()), "exists": exists}
    if problem := _problem_of(there):
        advice = f"fix that, or {_NAME_ANOTHER}"
        return Check("data directory", Status.FAILED, f"{folder}: {problem}", detail, advice)
    held = exists and _is_locked(folder / "lock")
    state = "does not exist yet, and can be created"
    if exists:
        state = "is writable; a running server uses it" if held else "is writable"
    return Check(
        "data directory", Status.OK, f"{folder} {state}", detail={**detail, "in_use": held}
    )


def check_space(folder: Path, min_free: int | Literal["auto"]) -> Check:
    """Checks the free space of the file system, and whether jobs would start."""
    usage = shutil.disk_usage(existing_part(folder))
    floor = DiskFloor(existing_part(folder), min_free).floor_bytes()
    status = Status.OK
    if usage.free < _LITTLE_SPACE:
        status = Status.FAILED if usage.free < _NO_SPACE else Status.WARNING
    if usage.free < floor:
        status = Status.FAILED
    return Check(
        "disk space",
        status,
        f"{in_bytes(usage.free)} free of {in_bytes(usage.total)}; "
        f"jobs start at {in_bytes(floor)} or more",
        detail={"free_bytes": usage.free, "total_bytes": usage.total, "floor_bytes": floor},
        advice="" if status is Status.OK else f"free some space, or {_NAME_ANOTHER}",
    )


def check_file_system(folder: Path) -> Check:
    """Checks the data directory's file system: renames, hard links, locks, SQLite's journal."""
    there = existing_part(folder)
    if _problem_of(there) is not None:
        return _skipped("file system")
    kind = _file_system_of(there)
    with _scratch(there) as scratch:
        problems = [problem for test in _TESTS if (problem := test(scratch))]
    return Check(
        "file system",
        Status.FAILED if problems else Status.OK,
        f"{kind}: {'; '.join(problems) or 'renames, hard links, locks and SQLite work'}",
        detail={"type": kind, "problems": problems},
        advice=f"use a local disk: {_NAME_ANOTHER}",
    )


def check_fsync(folder: Path) -> Check:
    """Measures how long the disk takes to sync a block: the median of several."""
    there = existing_part(folder)
    if _problem_of(there) is not None:
        return _skipped("fsync")
    with _scratch(there) as scratch:
        seconds = statistics.median(_fsync_seconds(scratch / "block"))
    slow = seconds > _SLOW_FSYNC_SECONDS
    return Check(
        "fsync",
        Status.WARNING if slow else Status.OK,
        f"{seconds * 1000:.2f} ms",
        detail={"median_seconds": seconds, "slow_above_seconds": _SLOW_FSYNC_SECONDS},
        advice="each change of a job waits for a sync: use a faster disk",
    )


def _skipped(name: str) -> Check:
    return Check(name, Status.SKIPPED, value="the data directory is not writable")


def _problem_of(folder: Path) -> str | None:
    if not folder.is_dir():
        return f"{folder} is not a folder"
    try:
        with _scratch(folder) as scratch:
            (scratch / "file").write_bytes(_BLOCK)
    except OSError as error:
        return f"{folder} is not writable: {error.strerror}"
    return None


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".leadline-doctor-") as name:
        yield Path(name)


def _fsync_seconds(path: Path) -> Iterator[float]:
    with path.open("wb", buffering=0) as file:
        for _ in range(_FSYNCS):
            began = time.perf_counter()
            file.write(_BLOCK)
            os.fsync(file.fileno())
            yield time.perf_counter() - began


def _test_rename(scratch: Path) -> str | None:
    path = scratch / "renamed"
    for content in (b"former", b"latter"):
        write_atomically(path, content)
    return None if path.read_bytes() == b"latter" else "a rename does not replace a file"


def _test_link(scratch: Path) -> str | None:
    path = scratch / "linked"
    try:
        write_atomically(path, b"file", replaces=False)
    except OSError as error:
        return f"hard links do not work: {error.strerror}"
    return None


def _test_lock(scratch: Path) -> str | None:
    path = scratch / "lock"
    with path.open("a+") as first, path.open("a+") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
    return "locks do not exclude other processes"


def _test_database(scratch: Path) -> str | None:
    with closing(sqlite3.connect(scratch / "test.db")) as database:
        (mode,) = database.execute("PRAGMA journal_mode=WAL").fetchone()
        database.execute("CREATE TABLE numbers (number INTEGER)")
        database.execute("INSERT INTO numbers VALUES (7)")
        database.commit()
    return None if mode == "wal" else "SQLite cannot use its write-ahead log"


_TESTS = (_test_rename, _test_link, _test_lock, _test_database)


def _file_system_of(path: Path) -> str:
    mounts = [
        (Path(mount.mountpoint), mount.fstype)
        for mount in psutil.disk_partitions(all=True)
        if path.resolve().is_relative_to(mount.mountpoint)
    ]
    # If several mounts have the same path, the last one is visible.
    mounts.sort(key=lambda mount: len(mount[0].parts))
    return mounts[-1][1] if mounts else "unknown"


def _is_locked(path: Path) -> bool:
    """Whether a process holds a lock on a file. Reads the kernel's list and acquires no lock.

    Source: proc_locks(5).
    """
    try:
        status = path.stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return False
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return any(device in line.split() and "FLOCK" in line for line in lines)
