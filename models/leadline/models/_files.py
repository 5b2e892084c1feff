"""Files that are either all there or not there at all, whenever the power goes."""

import hashlib
import os
import threading
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file so that its name only ever stands for all of its bytes, on disk.

    The folder must exist. A file of that name is replaced.

    Raises:
        OSError: the file cannot be written; a former one of that name is intact.
    """
    # Two that write the same file must not share what is half written.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Makes a folder, and those it lies in, durably; one that is there stays as it is."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(data: bytes) -> str:
    """Returns the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
