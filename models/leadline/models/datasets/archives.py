"""Folders and tars of `train/CLASS/*` and `test/CLASS/*` image files."""

import bz2
import gzip
import hashlib
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from leadline.models.datasets.contents import SPLITS, Contents, DatasetError, Item
from leadline.models.datasets.listing import LAYOUT, Listing, Place
from leadline.models.images import ImageError, open_image

_MAX_FILE_BYTES = 64 << 20  # an image file, which is read as a whole
_READ_AT_ONCE = 1 << 20

_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_MAGIC_BYTES = max(len(start) for start in _OPENERS)
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)


class Folder:
    """A folder with `train` and `test` in it."""

    def __init__(self, path: Path, max_pixels: int) -> None:
        missing = [name for name in SPLITS if not (path / name).is_dir()]
        if missing:
            raise DatasetError(
                f"{path} is no dataset: it has no folder {' and no folder '.join(missing)}; "
                f"expected {LAYOUT}"
            )
        self._path = path
        self._max_pixels = max_pixels

    def key(self) -> str:
        """Returns a hash of the files' names, sizes and times: to read them all takes too long."""
        digest = hashlib.sha256(str(self._path.resolve()).encode(errors="surrogateescape"))
        for path in self._files():
            status = (self._path / path).stat()
            record = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n"
            digest.update(record.encode(errors="surrogateescape"))
        return f"folder-{digest.hexdigest()}"

    def read(self) -> Contents:
        """Lists the folder; decodes an image when it is iterated to."""
        listing = Listing(str(self._path), self._files())
        return listing.contents(self._items(listing))

    def _files(self) -> list[str]:
        paths = (path for split in SPLITS for path in (self._path / split).glob("*/*"))
        return sorted(path.relative_to(self._path).as_posix() for path in paths if path.is_file())

    def _items(self, listing: Listing) -> Iterator[Item]:
        for name, place in listing.places.items():
            path = self._path / name
            _check_size(str(path), path.stat().st_size)
            yield _decode(str(path), path.read_bytes(), place, self._max_pixels)


class Tar:
    """A tar, compressed or not. It is read as a stream: nothing of it is unpacked on disk."""

    def __init__(self, path: Path, max_pixels: int) -> None:
        self._path = path
        self._max_pixels = max_pixels
        if not path.exists():
            raise DatasetError(f"{path} does not exist; expected a folder or a tar of images")
        if not path.is_file():
            raise DatasetError(f"{path} is neither a folder nor a tar")
        with _opened(path) as tar:
            if tar.next() is None:
                raise DatasetError(f"{path} is an empty tar; expected {LAYOUT}")

    def key(self) -> str:
        """Returns a hash of the whole file."""
        with self._path.open("rb") as file:
            return f"tar-{hashlib.file_digest(file, 'sha256').hexdigest()}"

    def read(self) -> Contents:
        """Lists the tar; decodes its images in a second pass, as they are iterated to."""
        with _opened(self._path, whole=True) as tar:
            listing = Listing(str(self._path), [member.name for member in _files(tar)])
        return listing.contents(self._items(listing))

    def _items(self, listing: Listing) -> Iterator[Item]:
        with _opened(self._path) as tar:
            for member in _files(tar):
                place = listing.places.get(member.name)
                if place is not None:
                    name = f"{self._path}: {member.name}"
                    _check_size(name, member.size)
                    data = cast("IO[bytes]", tar.extractfile(member)).read()
                    yield _decode(name, data, place, self._max_pixels)


class _Stream:
    """A file, read forwards, that remembers its end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._end = b""

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._end = (self._end + data)[-tarfile.BLOCKSIZE :]
        return data

    def check_end(self) -> None:
        """Refuses a tar that was cut short between two of its files.

        A whole tar ends in a block of zeros, but `tarfile` does not insist.
        """
        while self.read(_READ_AT_ONCE):
            pass
        if any(self._end):
            raise tarfile.ReadError("its end is missing")


@contextmanager
def _opened(path: Path, *, whole: bool = False) -> Iterator[tarfile.TarFile]:
    """Opens a tar as a stream; where `whole`, reads it to its end and checks that it has one."""
    try:
        with _decompressed(path) as file:
            stream = _Stream(file)
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as tar:
                yield tar
            if whole:
                stream.check_end()
    except _DAMAGE as error:
        raise DatasetError(f"{path} is not a whole tar: {error}") from error


@contextmanager
def _decompressed(path: Path) -> Iterator[IO[bytes]]:
    # `tarfile` could decompress a stream too, but does not notice where it is cut short.
    with path.open("rb") as file:
        magic = file.read(_MAGIC_BYTES)
        file.seek(0)
        opener = next((opens for start, opens in _OPENERS.items() if magic.startswith(start)), None)
        if opener is None:
            yield file
        else:
            with opener(file, "rb") as stream:
                yield cast("IO[bytes]", stream)


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    # Links and devices are no files: what they point to is none of the tar's business.
    return (member for member in tar if member.isreg())


def _check_size(name: str, size: int) -> None:
    if size > _MAX_FILE_BYTES:
        raise DatasetError(f"{name}: {size:,} bytes, and at most {_MAX_FILE_BYTES:,} are allowed")


def _decode(name: str, data: bytes, place: Place, max_pixels: int) -> Item:
    try:
        image = open_image(data, max_pixels=max_pixels)
        return Item(place.split, place.index, image.decode(), image.aspect_ratio)
    except ImageError as error:
        raise DatasetError(f"{name}: {error}") from error
