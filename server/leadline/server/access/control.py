"""Access control: who a caller is, by the tokens file and the access file, which it watches."""

import asyncio
import math
import stat
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import structlog

from leadline.server.access.access_file import AccessFile, read_access_file
from leadline.server.access.certificates import parse_certificate
from leadline.server.access.quotas import Quotas
from leadline.server.access.tokens import AccessFileError, Token, digest_of, read_tokens
from leadline.server.errors import UnauthenticatedError
from leadline.server.identity import Identity
from leadline.server.settings import Settings
from leadline.server.thread_pool import ThreadPool

_LOG = structlog.get_logger(__name__)

# A revoked token's streams must end within two seconds.
_LOOK_SECONDS = 0.5

# The headers that are remembered; callers may add spaces to theirs.
_MOST_KNOWN_HEADERS, _LONGEST_KNOWN_HEADER = 4_096, 128

T = TypeVar("T")


class _Grant(NamedTuple):
    identity: Identity
    expires: float


class _Tokens:
    """The tokens of one state of their file; replaced as a whole, because a thread loads them.

    Attributes:
        grants: by the SHA-256 of the token.
    """

    def __init__(self, tokens: Iterable[Token]) -> None:
        self.grants = {bytes.fromhex(token.sha256): _grant(token) for token in tokens}
        # To save a hash and a parse for every call.
        self._by_header: dict[bytes, _Grant] = {}

    def grant_of_header(self, authorization: Sequence[bytes]) -> _Grant | None:
        """The grant of the only value of the header; None if no token has one."""
        if len(authorization) != 1:
            return None
        header = authorization[0]
        grant = self._by_header.get(header)
        if grant is None:
            grant = self.grants.get(digest_of(_bearer(header)))
            if grant is not None and len(header) <= _LONGEST_KNOWN_HEADER:
                if len(self._by_header) == _MOST_KNOWN_HEADERS:
                    self._by_header.clear()
                self._by_header[header] = grant
        return grant


class AccessControl:
    """Authenticates callers by token or certificate.

    Attributes:
        quotas: those of the access file.
        on_reload: called after each reload: with None, or with the reason of a refusal.
    """

    def __init__(self, settings: Settings, *, is_required: bool = False) -> None:
        """Makes an access control that knows nobody before `load` or `watch`.

        Args:
            settings: the server's options.
            is_required: whether callers need an identity even if the settings do not say so.
        """
        self._tokens_file = _WatchedFile(settings.tokens_path, read_tokens)
        self._access_file: _WatchedFile[AccessFile] | None = None
        if settings.access_file is not None:
            self._access_file = _WatchedFile(settings.access_file, read_access_file)
        self._is_required = is_required or settings.requires_identities
        self._tokens = _Tokens(())
        self._holders: dict[str, Identity] = {}
        self._next_expiry = math.inf
        self._error = ""
        self.quotas = Quotas()
        self.on_reload: list[Callable[[str | None], None]] = []

    @property
    def is_required(self) -> bool:
        """Whether callers need an identity. Once true, it stays so: a lost file opens nothing."""
        return self._is_required

    def load(self) -> bool:
        """Reads the files that have changed; returns whether any has. Blocks.

        Raises:
            AccessFileError: a file is damaged or has vanished; its last contents stay in force.
        """
        has_changed, errors = self._load()
        if errors:
            raise errors[0]
        return has_changed

    def reload(self) -> bool:
        """Does what `load` does, but logs an error, once, instead of raising it."""
        has_changed, errors = self._load()
        if has_changed:
            _LOG.info("identities are loaded", tokens=len(self._tokens.grants))
            self._tell(None)
        why = "; ".join(map(str, errors))
        if why and why != self._error:
            _LOG.error("the last identities stay in force", why=why)
            self._tell(why)
        self._error = why
        return has_changed

    def _load(self) -> tuple[bool, list[AccessFileError]]:
        """Reads each file by itself: a damaged one must not hide the changes of the other."""
        has_changed, errors = False, []
        for load in (self._load_tokens, self._load_access_file):
            try:
                has_changed |= load()
            except AccessFileError as error:
                errors.append(error)
        return has_changed, errors

    def _load_tokens(self) -> bool:
        try:
            tokens = self._tokens_file.read_if_changed()
        except _MissingFileError:
            if self._tokens_file.was_read:
                raise
            return False  # the first one is not created yet
        if tokens is None:
            return False
        self._tokens = _Tokens(tokens)
        self._is_required = True
        return True

    def _load_access_file(self) -> bool:
        contents = None if self._access_file is None else self._access_file.read_if_changed()
        if contents is None:
            return False
        self._holders = {name: holder.identity for name, holder in contents.certificates.items()}
        self.quotas = contents.quotas
        return True

    def _tell(self, why: str | None) -> None:
        for tell in self.on_reload:
            tell(why)

    async def watch(self, recheck: Callable[[], Awaitable[None]]) -> None:
        """Follows the files; awaits `recheck` whenever identities change or one in use expires."""
        threads = ThreadPool("access", 1)
        is_due = has_failed = False
        try:
            while True:
                try:
                    is_due |= await threads.run(self.reload)
                    if is_due or time.time() >= self._next_expiry:
                        is_due, self._next_expiry = True, math.inf  # `recheck` finds the next one
                        await recheck()
                    is_due = has_failed = False
                except Exception:  # noqa: BLE001 - without the watch, nobody could be revoked any more
                    if not has_failed:
                        _LOG.exception("identities cannot be checked: trying again")
                    has_failed = True
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            threads.close()

    def authenticate(self, authorization: Sequence[bytes], certificate: str | None) -> Identity:
        """The caller.

        Args:
            authorization: the values of this header; if there are any, the certificate is ignored.
            certificate: the verified certificate of the connection, PEM; None without one.

        Raises:
            UnauthenticatedError: the caller has no valid credentials.
        """
        if authorization:
            return self._valid(self._tokens.grant_of_header(authorization))
        return self._valid(None if certificate is None else self._grant_of_certificate(certificate))

    def identity_of_token(self, digest: bytes) -> Identity:
        """Whose token has this SHA-256.

        Raises:
            UnauthenticatedError: there is no such token, or it has expired.
        """
        return self._valid(self._tokens.grants.get(digest))

    def _valid(self, grant: _Grant | None) -> Identity:
        if grant is None or grant.expires <= time.time():
            raise UnauthenticatedError
        self._next_expiry = min(self._next_expiry, grant.expires)
        return grant.identity

    def _grant_of_certificate(self, pem: str) -> _Grant | None:
        certificate = parse_certificate(pem)
        for name in certificate.names if certificate else ():
            if certificate and name in self._holders:
                return _Grant(self._holders[name], certificate.expires)
        return None


def _grant(token: Token) -> _Grant:
    return _Grant(token.identity, token.expires.timestamp() if token.expires else math.inf)


def _bearer(header: bytes) -> bytes:
    """The token in a header; empty, which no token is, if there is none."""
    scheme, _, token = header.partition(b" ")
    return token.strip(b" ") if scheme.lower() == b"bearer" else b""


class _MissingFileError(AccessFileError):
    """A file is not there."""


class _WatchedFile(Generic[T]):
    """A file that is read when it has changed.

    Attributes:
        path: the file.
        was_read: whether it was read without an error.
    """

    def __init__(self, path: Path, read: Callable[[Path], T]) -> None:
        self.path = path
        self.was_read = False
        self._read = read
        self._signature: tuple[int, ...] = ()

    def read_if_changed(self) -> T | None:
        """The contents; None if they are those of the last time.

        Raises:
            _MissingFileError: there is no such file.
            AccessFileError: the file is damaged, or cannot be read.
        """
        try:
            status = self.path.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe would block the thread
                raise AccessFileError(f"{self.path} is not a file")
            signature = (status.st_ino, status.st_size, status.st_mtime_ns)
            if signature == self._signature:
                return None
            contents = self._read(self.path)
        except (FileNotFoundError, NotADirectoryError) as error:
            self._signature = ()
            raise _MissingFileError(
                f"there is no file {self.path}: restore it, or name another with --tokens-file or "
                "--access-file"
            ) from error
        except OSError as error:
            raise AccessFileError(f"{self.path} cannot be read: {error.strerror}") from error
        self.was_read = True
        self._signature = signature  # after an error the file is read again
        return contents
