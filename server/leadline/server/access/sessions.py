"""Sessions of browsers that have logged in with a token."""

import secrets
import time
from collections import Counter, OrderedDict
from typing import Any

from leadline.server.access.audit import AuditLog
from leadline.server.access.control import AccessControl
from leadline.server.access.tokens import digest_of
from leadline.server.errors import UnauthenticatedError
from leadline.server.identity import Identity

SESSION_SECONDS = 12 * 3_600.0

# Further logins end the oldest session of the same token, so nobody can end those of others.
_SESSIONS_OF_A_TOKEN = 20

_ID_BYTES = 32

# The attempts to log in of one address in each minute, and the addresses that are counted.
_ATTEMPTS = 10
_PERIOD_SECONDS = 60.0
_ADDRESSES = 10_000


class TooManyAttemptsError(Exception):
    """An address tries to log in too often."""


class Sessions:
    """The open sessions; each ends with its token, by its age, or with the server."""

    def __init__(self, access: AccessControl, audit: AuditLog | None = None) -> None:
        self._access = access
        self._audit = audit
        # The token's hash and the beginning, by the hash of the session's id, oldest first.
        self._open: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self._attempts: Counter[str] = Counter()
        self._period = 0.0

    def log_in(self, token: str, *, address: str) -> tuple[str, Identity]:
        """Opens a session; returns its id, which is a secret, and whose it is.

        Raises:
            TooManyAttemptsError: the address tries too often.
            UnauthenticatedError: the token is not valid.
        """
        self._count_attempt(address)
        digest = digest_of(token.encode(errors="replace"))
        try:
            identity = self._access.identity_of_token(digest)
        except UnauthenticatedError as error:
            self._record(address, code="UNAUTHENTICATED", reason=error.reason, denied=True)
            raise
        self._record(address, who=identity.name, role=identity.role.name.lower(), code="OK")
        session = secrets.token_urlsafe(_ID_BYTES)
        same = [key for key, (owner, _) in self._open.items() if owner == digest]
        for key in same[: max(0, len(same) + 1 - _SESSIONS_OF_A_TOKEN)]:
            del self._open[key]
        self._open[digest_of(session.encode())] = digest, time.monotonic()
        return session, identity

    def identity(self, session: str) -> Identity:
        """Whose session it is.

        Raises:
            UnauthenticatedError: there is no such session, or its token is not valid any more.
        """
        oldest = time.monotonic() - SESSION_SECONDS
        while self._open and next(iter(self._open.values()))[1] < oldest:
            self._open.popitem(last=False)
        # Without a session, a digest that no token has: the same work.
        digest, _ = self._open.get(digest_of(session.encode(errors="replace")), (b"", 0.0))
        return self._access.identity_of_token(digest)

    def log_out(self, session: str) -> None:
        """Ends a session, if it is open."""
        self._open.pop(digest_of(session.encode(errors="replace")), None)

    def _record(self, address: str, **values: Any) -> None:
        if self._audit is not None:
            self._audit.record("login", peer=address, **values)

    def _count_attempt(self, address: str) -> None:
        now = time.monotonic()
        if now - self._period > _PERIOD_SECONDS or len(self._attempts) > _ADDRESSES:
            self._attempts.clear()
            self._period = now
        self._attempts[address] += 1
        if self._attempts[address] > _ATTEMPTS:
            raise TooManyAttemptsError
