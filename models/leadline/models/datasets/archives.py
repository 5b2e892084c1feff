"""Reads image files `train/CLASS/*` and `test/CLASS/*` from folders and tars."""

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
from leadline.models.images import DecodingStoppedError, ImageError, open_image

_MAX_FILE_BYTES = 64 << 20  # an image file, which is read as a whole
_READ_AT_ONCE = 1 << 20

# The headers of a file in a tar: its long name, times and so on.
_MAX_HEADER_BYTES = 1 << 16

_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_MAGIC_BYTES = max(len(start) for start in _OPENERS)
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)


IsWanted = Callable[[], bool]
"""Whether to continue; called before each file, and each megabyte of a large one."""


class Folder:
    """A folder that contains `train` and `test`."""

    def __init__(self, path: Path, max_pixels: int, is_wanted: IsWanted) -> None:
        missing = [name for name in SPLITS if not (path / name).is_dir()]
        if missing:
            raise DatasetError(
                f"{path} is not a dataset: it has no folder {' and no folder '.join(missing)}; "
                f"expected {LAYOUT}"
            )
        self._path = path
        self._max_pixels = max_pixels
        self._is_wanted = is_wanted

    def key(self) -> str:
        """Returns a hash of the files' names, sizes and times: reading them takes too long."""
        digest = hashlib.sha256(str(self._path.resolve()).encode(errors="surrogateescape"))
        for path in self._files():
            status = (self._path / path).stat()
            record = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n"
            digest.update(record.encode(errors="surrogateescape"))
        return f"folder-{digest.hexdigest()}"

    def read(self) -> Contents:
        """Lists the folder; the returned iterator decodes the images."""
        listing = Listing(str(self._path), self._files())
        return listing.contents(self._items(listing))

    def _files(self) -> list[str]:
        paths = (path for split in SPLITS for path in (self._path / split).glob("*/*"))
        return sorted(
            path.relative_to(self._path).as_posix()
            for path in paths
            if _still(self._is_wanted) and path.is_file()
        )

    def _items(self, listing: Listing) -> Iterator[Item]:
        for name, place in listing.places.items():
            path = self._path / name
            _check_size(str(path), path.stat().st_size)
            yield _decode(str(path), path.read_bytes(), place, self._max_pixels)


class Tar:
    """A tar, compressed or not. It is read as a stream, and never unpacked on disk."""

    def __init__(self, path: Path, max_pixels: int, is_wanted: IsWanted) -> None:
        self._path = path
        self._max_pixels = max_pixels
        self._is_wanted = is_wanted
        if not path.exists():
            raise DatasetError(f"{path} does not exist; expected a folder or a tar of images")
        if not path.is_file():
            raise DatasetError(f"{path} is neither a folder nor a tar")
        with _opened(path) as stream:
            if stream.next() is None:
                raise DatasetError(f"{path} is an empty tar; expected {LAYOUT}")

    def key(self) -> str:
        """Returns a hash of the whole file."""
        digest = hashlib.sha256()
        with self._path.open("rb") as file:
            while _still(self._is_wanted) and (data := file.read(_READ_AT_ONCE)):
                digest.update(data)
        return f"tar-{digest.hexdigest()}"

    def read(self) -> Contents:
        """Lists the tar; the returned iterator decodes the images in a second pass."""
        with _opened(self._path) as stream:
            listing = Listing(str(self._path), (member.name for member in self._files(stream)))
            stream.check_end()
        return listing.contents(self._items(listing))

    def _files(self, stream: "_TarStream") -> Iterator[tarfile.TarInfo]:
        while _still(self._is_wanted) and (member := stream.next()) is not None:
            # Links and devices are not regular files, and may point outside the tar.
            if member.isreg():
                yield member

    def _items(self, listing: Listing) -> Iterator[Item]:
        with _opened(self._path) as stream:
            for member in self._files(stream):
                place = listing.places.get(member.name)
                if place is not None:
                    name = f"{self._path}: {member.name}"
                    _check_size(name, member.size)
                    yield _decode(name, stream.read_member(member), place, self._max_pixels)


class _File:
    """A file that is read forwards and keeps its last bytes.

    Attributes:
        limit: the offset at which reading stops.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.limit = _MAX_HEADER_BYTES
        self._file = file
        self._position = 0
        self._end = b""

    def read(self, size: int) -> bytes:
        if self._position > self.limit:
            raise tarfile.ReadError(
                f"the headers of a file, such as its name, have more than {_MAX_HEADER_BYTES:,} "
                "bytes"
            )
        data = self._file.read(size)
        self._position += len(data)
        self._end = (self._end + data)[-tarfile.BLOCKSIZE :]
        return data

    def is_ended(self) -> bool:
        """Reads the rest; returns whether the file ends in a block of zeros."""
        while data := self._file.read(_READ_AT_ONCE):
            self._end = (self._end + data)[-tarfile.BLOCKSIZE :]
        return not any(self._end)


class _TarStream:
    """Iterates over the members of a tar, and keeps only the current one in memory."""

    def __init__(self, tar: tarfile.TarFile, file: _File) -> None:
        self._tar = tar
        self._file = file

    def next(self) -> tarfile.TarInfo | None:
        """Returns the next member; None after the last."""
        # `tarfile` limits neither the length of a name nor the map of a sparse file.
        self._file.limit = self._tar.offset + _MAX_HEADER_BYTES
        member = self._tar.next()
        self._file.limit = self._tar.offset + _MAX_HEADER_BYTES
        self._tar.members.clear()  # type: ignore[attr-defined] # not in the stubs
        self._tar.pax_headers = {}
        return member

    def check_end(self) -> None:
        """Rejects a tar that was truncated between two files.

        A complete tar ends in a block of zeros, which `tarfile` does not check.
        """
        if not self._file.is_ended():
            raise tarfile.ReadError("the end of the tar is missing")

    def read_member(self, member: tarfile.TarInfo) -> bytes:
        """Returns the contents of a member, which must be the last one that `next` returned."""
        return cast("IO[bytes]", self._tar.extractfile(member)).read()


@contextmanager
def _opened(path: Path) -> Iterator[_TarStream]:
    """Opens a tar as a stream."""
    try:
        with _decompressed(path) as file:
            limited = _File(file)
            with tarfile.open(fileobj=cast("IO[bytes]", limited), mode="r|") as tar:
                yield _TarStream(tar, limited)
    except _DAMAGE as error:
        raise DatasetError(f"{path} is not a complete tar: {error}") from error


@contextmanager
def _decompressed(path: Path) -> Iterator[IO[bytes]]:
    # `tarfile` could decompress a stream too, but does not detect truncation.
    with path.open("rb") as file:
        magic = file.read(_MAGIC_BYTES)
        file.seek(0)
        opener = next((opens for start, opens in _OPENERS.items() if magic.startswith(start)), None)
        if opener is None:
            yield file
        else:
            with opener(file, "rb") as stream:
                yield cast("IO[bytes]", stream)


def _still(is_wanted: IsWanted) -> bool:
    """Returns true.

    Raises:
        DecodingStoppedError: `is_wanted` returned false.
    """
    if not is_wanted():
        raise DecodingStoppedError
    return True


def _check_size(name: str, size: int) -> None:
    if size > _MAX_FILE_BYTES:
        raise DatasetError(f"{name}: {size:,} bytes, and at most {_MAX_FILE_BYTES:,} are allowed")


def _decode(name: str, data: bytes, place: Place, max_pixels: int) -> Item:
    try:
        image = open_image(data, max_pixels=max_pixels)
        return Item(place.split, place.index, image.decode(), image.aspect_ratio)
    except ImageError as error:
        raise DatasetError(f"{name}: {error}") from error
