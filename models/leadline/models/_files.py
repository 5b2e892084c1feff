"""Atomic and durable writes of files."""

import hashlib
import os
import threading
from pathlib import Path


def write_atomically(path: Path, data: bytes, *, replaces: bool = True) -> None:
    """Writes a file atomically and durably: a crash never leaves a part of it.

    Args:
        path: the file, in a folder that exists.
        data: its bytes.
        replaces: whether an existing file is replaced.

    Raises:
        FileExistsError: the file exists, and must not be replaced.
        OSError: the file cannot be written; an existing file is intact.
    """
    # Two writers of the same file must not share a temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replaces:
            temporary.replace(path)
        else:
            # Unlike a rename, a hard link fails if another writer was faster.
            path.hardlink_to(temporary)
            temporary.unlink()
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Creates a folder and its parents durably; keeps an existing folder as it is."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(data: bytes) -> str:
    """Returns the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
