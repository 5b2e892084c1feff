"""How a client secures its connection, and how it proves who calls.

TLS is gRPC's own. A token travels as metadata of each call, on any channel: gRPC's call
credentials work over TLS only, and loopback needs none.
"""

import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import grpc

from leadline.client._channel import is_loopback, normal_target, scheme_tls
from leadline.client._errors import invalid

Token: TypeAlias = str | Callable[[], str]
"""A bearer token, or a function that returns the current one and is called for each call."""

PathLike: TypeAlias = str | os.PathLike[str]

Credentials: TypeAlias = grpc.ChannelCredentials | grpc.CallCredentials

# Far more than a token has, and what the server allows for all metadata.
_MAX_TOKEN_BYTES = 64 * 1024

# RFC 6750, 2.1. gRPC would quote any other value in its error.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass(frozen=True, kw_only=True)
class Security:
    """The security of a connection; `AsyncClient` documents the attributes."""

    tls: bool | None = None
    ca: PathLike | None = None
    cert: PathLike | None = None
    key: PathLike | None = None
    server_name: str | None = None
    token: Token | None = field(default=None, repr=False)
    token_file: PathLike | None = None
    insecure_token: bool = False
    credentials: Credentials | None = None

    def token_reader(self) -> Callable[[], str] | None:
        """A function that returns the current token; None without a token.

        It raises an `InvalidArgumentError` if that is not a bearer token, and an `OSError` if the
        file cannot be read.

        Raises:
            InvalidArgumentError: the token is not a bearer token.
        """
        if self.token_file is not None:
            path = expanded(self.token_file)
            return lambda: _checked("token_file", _read(path))
        if callable(self.token):
            current = self.token
            return lambda: _checked("token", current())
        if self.token is not None:
            token = _checked("token", self.token)
            return lambda: token
        return None

    def channel_credentials(self, target: str) -> grpc.ChannelCredentials | None:
        """The credentials of gRPC for a channel to `target`; None for a channel without TLS.

        Raises:
            InvalidArgumentError: the arguments contradict each other or the target, a file has no
                certificate or key, or a token would cross a network unencrypted.
            OSError: a file cannot be read.
        """
        if self.token is not None and self.token_file is not None:
            raise invalid("token", "give a token or a token_file, not both")
        if isinstance(self.credentials, grpc.ChannelCredentials):
            if self.tls is False or self._tls_files:
                raise invalid("credentials", "channel credentials replace tls, ca, cert and key")
            return self.credentials
        if self._uses_tls(target):
            return self._tls_credentials()
        if self.credentials is not None:
            raise invalid("credentials", "call credentials need TLS: use https:// or tls=True")
        has_token = self.token is not None or self.token_file is not None
        if has_token and not self.insecure_token and not is_loopback(normal_target(target)):
            raise invalid(
                "token",
                "it would cross the network unencrypted: use TLS (https://), or set "
                "insecure_token to send it nevertheless",
            )
        return None

    @property
    def _tls_files(self) -> list[PathLike]:
        return [path for path in (self.ca, self.cert, self.key) if path is not None]

    def _uses_tls(self, target: str) -> bool:
        by_scheme = scheme_tls(target)
        if None not in (self.tls, by_scheme) and self.tls is not by_scheme:
            raise invalid("tls", "the target's scheme says otherwise: leave out one of the two")
        explicit = by_scheme if self.tls is None else self.tls
        if explicit is False and (self._tls_files or self.server_name):
            raise invalid("tls", "ca, cert, key and server_name are for TLS, which is off")
        return bool(self._tls_files) if explicit is None else explicit

    def _tls_credentials(self) -> grpc.ChannelCredentials:
        ca, cert, key = (
            None if path is None else expanded(path) for path in (self.ca, self.cert, self.key)
        )
        if (cert is None) != (key is None):
            raise invalid("cert", "cert and key belong together: give both")
        for name, path in (("ca", ca), ("cert", cert), ("key", key)):
            if path is not None and not path.is_file():
                raise invalid(name, f"there is no file {path}")
        # Checked here: gRPC reports a malformed file only as an unavailable server.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if ca is not None:
            _check_authority(context, ca)
        if cert is not None and key is not None:
            _check_pair(context, cert, key)
        channel: Any = grpc.ssl_channel_credentials(
            *(None if path is None else path.read_bytes() for path in (ca, key, cert))
        )
        if isinstance(self.credentials, grpc.CallCredentials):
            channel = grpc.composite_channel_credentials(channel, self.credentials)
        credentials: grpc.ChannelCredentials = channel
        return credentials


def expanded(path: PathLike) -> Path:
    """The path, with the user's home instead of "~"; unchanged if there is no such home."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - the path's own method raises an error


def _checked(name: str, token: str) -> str:
    if not _TOKEN.fullmatch(token):
        # Without the value, which is a secret.
        raise invalid(name, "is empty, or has characters that no bearer token has")
    return token


def _read(path: Path) -> str:
    # For each call, so with three system calls: opening a file object takes four times as long.
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, _MAX_TOKEN_BYTES).decode(errors="replace").strip()
    finally:
        os.close(file)


def _check_authority(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise invalid("ca", f"{path} has no certificate in PEM form") from None


def _check_pair(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    def refuse() -> NoReturn:
        raise invalid("key", f"{key} is encrypted, which gRPC does not support")

    try:
        context.load_cert_chain(cert, key, password=refuse)
    except ssl.SSLError:
        raise invalid(
            "cert", f"{cert} and {key} are not a certificate and its private key in PEM form"
        ) from None
