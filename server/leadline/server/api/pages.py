"""Pages (AIP-158): sizes, and tokens that only this server can make.

A token carries where the next page begins and what it is a page of, signed
with a key that the data directory keeps: it holds across restarts, and one
that was never given, or belongs to another request, is refused.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message

from leadline.server.errors import InvalidArgumentError

T = TypeVar("T")

_KEY_BYTES = 32
_SIGNATURE_BYTES = 16

_MAX_PAGE_SIZE = 1_000


def page_size(requested: int, *, default: int) -> int:
    """The number of entries for a page; 0 requests the default.

    Raises:
        InvalidArgumentError: it is negative.
    """
    if requested < 0:
        raise InvalidArgumentError.of("page_size", f"must not be negative, is {requested}")
    return min(requested or default, _MAX_PAGE_SIZE)


def query_of(request: Message) -> list[str]:
    """What a request's pages are pages of: all its fields but those of the page."""
    query = type(request)()
    query.CopyFrom(request)
    for field in ("page_size", "page_token"):
        query.ClearField(field)
    return [query.DESCRIPTOR.full_name, query.SerializeToString(deterministic=True).hex()]


class PageTokens:
    """Makes page tokens and reads those it made."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def load(cls, path: Path) -> "PageTokens":
        """With the key that the file at `path` keeps, made where it is missing.

        Raises:
            OSError: the file cannot be read or made.
        """
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            key = b""
        if len(key) != _KEY_BYTES:
            key = secrets.token_bytes(_KEY_BYTES)
            partial = path.with_suffix(".partial")
            partial.touch(mode=0o600)
            with partial.open("wb") as file:
                file.write(key)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        return cls(key)

    def make(self, of: Any, position: Any) -> str:
        """A token.

        Args:
            of: what it is a page of: JSON values, the same for each page.
            position: where the page begins: JSON values.
        """
        payload = json.dumps([_digest(of), position], separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._sign(payload) + payload).decode().rstrip("=")

    def cut(
        self, of: Any, found: Sequence[T], size: int, *, position: Callable[[T], Any]
    ) -> tuple[Sequence[T], str]:
        """The page, and the token of the next, which is empty where this is the last.

        Args:
            of: as for `make`.
            found: what the page begins with, one entry more than it may hold if
                there are as many.
            size: entries that it may hold.
            position: of an entry, after which the next page begins.
        """
        page = found[:size]
        return page, self.make(of, position(page[-1])) if len(found) > size else ""

    def read(self, of: Any, token: str) -> Any:
        """The position that `make` was given; None for the first page's empty token.

        Raises:
            InvalidArgumentError: the token was never given, or for another request.
        """
        if not token:
            return None
        payload = self._verified(token)
        if payload is None:
            raise InvalidArgumentError.of(
                "page_token", "was not given by this server: send a next_page_token unchanged"
            )
        digest, position = json.loads(payload)
        if digest != _digest(of):
            raise InvalidArgumentError.of(
                "page_token",
                "belongs to another request: keep the other fields as they were",
            )
        return position

    def _verified(self, token: str) -> bytes | None:
        try:
            raw = base64.b64decode(
                token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True
            )
        except (binascii.Error, UnicodeEncodeError, ValueError):
            return None
        signature, payload = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        return payload if hmac.compare_digest(signature, self._sign(payload)) else None

    def _sign(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, hashlib.sha256)[:_SIGNATURE_BYTES]


def _digest(of: Any) -> str:
    canonical = json.dumps(of, sort_keys=True).encode()
    return hashlib.sha256(canonical).hexdigest()[:16]
