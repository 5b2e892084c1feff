"""The static files of the page, read once at the start."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent / "assets"

_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

PAGE = "index.html"
"""The page itself, which loads the other files."""


LOGIN = "login.html"
"""The form to log in."""


@dataclass(frozen=True, kw_only=True)
class PageFile:
    """A file of the page; `tag` is the hash of its contents."""

    content_type: str
    body: bytes
    tag: str


def read_files() -> dict[str, PageFile]:
    """Every file, by its name."""
    return {path.name: _read(path) for path in sorted(_FOLDER.iterdir())}


def _read(path: Path) -> PageFile:
    body = path.read_bytes()
    return PageFile(
        content_type=_TYPES[path.suffix],
        body=body,
        tag=hashlib.sha256(body).hexdigest()[:32],
    )
