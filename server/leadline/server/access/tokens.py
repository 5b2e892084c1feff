"""Bearer tokens: 256 random bits, of which the tokens file has only the SHA-256.

`leadline tokens` changes the file, also while servers read it. Each change replaces the file, so a
reader has the old contents or the new ones, and a lock makes writers take turns.
"""

import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from leadline.models._files import sync_folder
from leadline.server.identity import Identity, Role

GRANTED_ROLES = {role.name.lower(): role for role in Role if role is not Role.ANYONE}
"""The roles that a token or a certificate may have, by name."""

_PREFIX = "ll_"
_RANDOM_BYTES = 32
_ID_BYTES = 5

# A name stands in logs, in metadata of errors and in keys of the access file.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")

# In filters it means the caller.
_RESERVED = "me"


class AccessFileError(Exception):
    """A file of identities cannot be used; the message says why, and quotes no secret."""


def check_name(name: str) -> str:
    """Returns the name of an identity.

    Raises:
        ValueError: it is malformed.
    """
    if not _NAME.fullmatch(name) or name == _RESERVED:
        raise ValueError(
            f"{name[:80]!r} is not a name: use up to 64 letters, digits, dots, dashes, underscores "
            f"and @, the first a letter or digit; not {_RESERVED}"
        )
    return name


def check_role(name: str) -> str:
    """Returns the name of a role.

    Raises:
        ValueError: there is no such role.
    """
    if name not in GRANTED_ROLES:
        raise ValueError(f"{name[:80]!r} is not a role: use {', '.join(GRANTED_ROLES)}")
    return name


IdentityName = Annotated[str, AfterValidator(check_name)]
RoleName = Annotated[str, AfterValidator(check_role)]


class Token(BaseModel):
    """A token, as the file describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{10}$")]
    """Not a secret: names the token for `revoke`."""

    name: IdentityName
    role: RoleName
    created: AwareDatetime
    expires: AwareDatetime | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @property
    def identity(self) -> Identity:
        """Whose token it is."""
        return Identity(name=self.name, role=GRANTED_ROLES[self.role])


class _Contents(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    tokens: tuple[Token, ...] = ()


def digest_of(token: bytes) -> bytes:
    """The SHA-256 of a token; without salt or stretching, because nobody can guess 256 bits."""
    return hashlib.sha256(token).digest()


def read_tokens(path: Path) -> tuple[Token, ...]:
    """The tokens of a file.

    Raises:
        OSError: it cannot be read.
        AccessFileError: it is damaged.
    """
    raw = path.read_bytes()
    try:
        return _Contents.model_validate_json(raw).tokens
    except ValidationError as error:
        raise AccessFileError(
            f"the tokens file {path} is damaged: {explained(error)}; restore it from a copy"
        ) from error


def explained(error: ValidationError) -> str:
    """The first problem of a file, by its key; without the value, which may be a secret."""
    first = error.errors(include_input=False, include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    text = first["msg"].removeprefix("Value error, ")
    return f"{key}: {text}" if key else text


def create_token(
    path: Path, *, name: str, role: str, lifetime: timedelta | None = None
) -> tuple[str, Token]:
    """Adds a token to a file, which is created if it is missing.

    Returns:
        The token itself, which is stored nowhere, and its description.

    Raises:
        ValueError: the name, the role or the lifetime is invalid.
        AccessFileError: the file is damaged, or cannot be read or written.
    """
    secret = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        expires = None if lifetime is None else now + lifetime
    except OverflowError:
        raise ValueError("the token would expire after the year 9999: omit its expiry") from None
    if expires is not None and expires <= now:
        raise ValueError("the token would expire at once: use at least a second")
    token = Token(
        id=secrets.token_hex(_ID_BYTES),
        name=check_name(name),
        role=check_role(role),
        created=now,
        expires=expires,
        sha256=digest_of(secret.encode()).hex(),
    )
    _change(path, lambda tokens: (*tokens, token))
    return secret, token


def revoke_tokens(path: Path, ids: Collection[str]) -> tuple[Token, ...]:
    """Removes tokens from a file: all with these ids, or none if one is missing.

    Returns:
        The removed tokens.

    Raises:
        ValueError: the file has no token of an id.
        AccessFileError: the file is damaged, or cannot be read or written.
    """
    revoked: list[Token] = []

    def remove(tokens: Sequence[Token]) -> Sequence[Token]:
        if missing := set(ids) - {token.id for token in tokens}:
            raise ValueError(f"there is no token {min(missing)[:80]}: `leadline tokens list`")
        revoked.extend(token for token in tokens if token.id in ids)
        return [token for token in tokens if token.id not in ids]

    _change(path, remove)
    return tuple(revoked)


def _change(path: Path, change: Callable[[Sequence[Token]], Sequence[Token]]) -> None:
    """Replaces the tokens of a file by what `change` makes of them."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            try:
                tokens: Sequence[Token] = read_tokens(path)
            except FileNotFoundError:
                tokens = ()
            contents = _Contents(tokens=tuple(change(tokens)))
            _replace(path, contents.model_dump_json(indent=1).encode() + b"\n")
    except OSError as error:
        raise AccessFileError(
            f"the tokens file {path} cannot be changed: {error.strerror}"
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # Not the file itself, which is replaced.
    lock = os.open(
        path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600
    )
    try:
        _give(lock, path.parent)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _replace(path: Path, contents: bytes) -> None:
    """Replaces a file by write, fsync and rename; only its owner may read it."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)  # of a writer that was killed
    file = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with open(file, "wb") as stream:  # noqa: PTH123 - a descriptor
        stream.write(contents)
        stream.flush()
        _give(file, path.parent)
        os.fsync(file)
    partial.replace(path)
    sync_folder(path.parent)


def _give(file: int, folder: Path) -> None:
    """Gives a file that root has made to the folder's owner, as whom the server may run."""
    status = os.fstat(file)
    # The folder's owner may have put a link to a file of root there.
    if os.geteuid() == 0 == status.st_uid and stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        owner = folder.stat()
        os.fchown(file, owner.st_uid, owner.st_gid)
