"""Pages (AIP-158): their sizes and their signed tokens.

A token carries a cursor, at which the next page begins, and a digest of the
query. It is signed with a key in the data directory, so it stays valid across
restarts. The server rejects a forged token, or a token of another query.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from leadline.server.errors import InvalidArgumentError

T = TypeVar("T")
AnyMessage = TypeVar("AnyMessage", bound=Message)

_KEY_BYTES = 32
_SIGNATURE_BYTES = 16

# The most bytes of a page's entries: gRPC's clients accept messages of up to 4 MiB.
MAX_PAGE_BYTES = 3_500_000
_BYTES_AROUND_ENTRY = 8

# The default number of entries of a page.
_DEFAULT_PAGE_SIZE = 50
EXAMPLES_PAGE_SIZE = 100
_MAX_PAGE_SIZE = 1_000


class PageRequest(Protocol):
    """A request for a page of a list."""

    page_size: int
    page_token: str


def page_size(requested: int, *, default: int = _DEFAULT_PAGE_SIZE) -> int:
    """The number of entries of a page; 0 requests the default.

    Raises:
        InvalidArgumentError: the number is negative.
    """
    if requested < 0:
        raise InvalidArgumentError.of("page_size", f"must not be negative, is {requested}")
    return min(requested or default, _MAX_PAGE_SIZE)


def query_of(request: Message) -> list[str]:
    """A request without the fields of its page, as JSON values."""
    query = type(request)()
    query.CopyFrom(request)
    for field in ("page_size", "page_token"):
        query.ClearField(field)
    return [query.DESCRIPTOR.full_name, query.SerializeToString(deterministic=True).hex()]


def fit(entries: Iterable[AnyMessage]) -> list[AnyMessage]:
    """The first entries that fit into `MAX_PAGE_BYTES`, at least one."""
    messages: list[AnyMessage] = []
    room = MAX_PAGE_BYTES
    for message in entries:
        room -= message.ByteSize() + _BYTES_AROUND_ENTRY
        if messages and room < 0:
            break
        messages.append(message)
    return messages


class PageTokens:
    """Issues and reads page tokens."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def load(cls, path: Path) -> "PageTokens":
        """Loads the key from the file at `path`, which is created if it is missing.

        Raises:
            OSError: the file cannot be read or created.
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

    def issue(self, query: Any, cursor: Any) -> str:
        """Returns a token.

        Args:
            query: identifies the list: JSON values, equal for each of its pages.
            cursor: where the next page begins: JSON values.
        """
        payload = json.dumps([_digest(query), cursor], separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._sign(payload) + payload).decode().rstrip("=")

    def page(self, request: PageRequest, query: Any) -> "Page":
        """The requested page; `query` is as for `issue`.

        Raises:
            InvalidArgumentError: the size or the token is invalid.
        """
        size = page_size(request.page_size)
        return Page(tokens=self, query=query, size=size, after=self.read(query, request.page_token))

    def read(self, query: Any, token: str) -> Any:
        """The cursor in a token; None if the token is empty, for the first page.

        Raises:
            InvalidArgumentError: the token is forged, or belongs to another query.
        """
        if not token:
            return None
        payload = self._verified(token)
        if payload is None:
            raise InvalidArgumentError.of(
                "page_token", "was not issued by this server: send a next_page_token unchanged"
            )
        digest, cursor = json.loads(payload)
        if digest != _digest(query):
            raise InvalidArgumentError.of(
                "page_token",
                "belongs to another request: do not change the other fields",
            )
        return cursor

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


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page of a list.

    Attributes:
        tokens: issues the next page's token.
        query: identifies the list.
        size: the most entries of the page.
        after: the cursor to begin after; None for the first page.
    """

    tokens: PageTokens
    query: Any
    size: int
    after: Any

    def fill(
        self,
        entries: Iterable[T],
        convert: Callable[[T], AnyMessage],
        *,
        cursor: Callable[[T], Any],
    ) -> tuple[list[AnyMessage], str]:
        """The page's messages, and the token of the next page, empty on the last.

        The page ends before the first entry that would exceed `MAX_PAGE_BYTES`.
        Call it in a thread: a page may take a second to read and to convert.

        Args:
            entries: the entries after the cursor: at least one more than the size, if
                there are more. Read only as far as the page needs.
            convert: converts an entry to a message.
            cursor: returns the cursor of an entry.
        """
        messages: list[AnyMessage] = []
        last, room = None, MAX_PAGE_BYTES
        for entry in entries:
            message = convert(entry)
            room -= message.ByteSize() + _BYTES_AROUND_ENTRY
            if last is not None and (len(messages) == self.size or room < 0):
                return messages, self.tokens.issue(self.query, cursor(last))
            messages.append(message)
            last = entry
        return messages, ""


def _digest(query: Any) -> str:
    canonical = json.dumps(query, sort_keys=True).encode()
    return hashlib.sha256(canonical).hexdigest()[:16]
