"""Tokens of a server under test, and what a call with one of them comes to."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc

from leadline.server.access.tokens import create_token, revoke_tokens

ROLE_NAMES = ("predictor", "viewer", "trainer", "admin")


@dataclass
class Tokens:
    """The tokens file of a server.

    Attributes:
        path: the file.
        secrets: the tokens by the name of their identity, which is their role by default.
        ids: their ids.
    """

    path: Path
    secrets: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def create(self, name: str, role: str = "", lifetime: timedelta | None = None) -> str:
        """Creates a token, and returns it."""
        secret, token = create_token(self.path, name=name, role=role or name, lifetime=lifetime)
        self.secrets[name], self.ids[name] = secret, token.id
        return secret

    def revoke(self, name: str) -> None:
        """Revokes the token of a name."""
        revoke_tokens(self.path, [self.ids[name]])


Metadata = tuple[tuple[str, str | bytes], ...]


def bearer(token: str) -> Metadata:
    """The metadata of a call with a token."""
    return (("authorization", f"Bearer {token}"),)


def tokens_of_all_roles(path: Path) -> Tokens:
    """Creates a tokens file with a token of each role, named after it."""
    tokens = Tokens(path)
    for role in ROLE_NAMES:
        tokens.create(role)
    return tokens


def code_of(call: Any) -> grpc.StatusCode:
    """The status of a call that a function makes: of all of its stream, if it has one."""
    try:
        made = call()
        if hasattr(made, "__iter__"):
            for _ in made:
                pass
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK
