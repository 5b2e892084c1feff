"""The server's certificates: loads and checks them, and follows their files."""

import asyncio
import datetime as dt
import os
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from leadline.server.settings import Settings

_LOG = structlog.get_logger(__name__)

ClientAuth = Literal["none", "optional", "required"]

_POLL_SECONDS = 1.0

# A tool replaces the certificate and the key one after the other. If the files do not change
# for as many looks and are still not usable, they are refused.
_PATIENCE = 5

# Of TLS 1.2; all of TLS 1.3 are modern.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class TlsError(Exception):
    """Certificates cannot be used; the message names the option and says what to do."""


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """Certificates that were checked, as PEM.

    Attributes:
        chain: the server's certificate and its intermediates.
        key: its private key.
        client_ca: the authorities of clients' certificates; None if clients need none.
        client_auth: whether clients have to send a certificate.
        expires: when the first certificate of "server" and of "client_ca" expires.
    """

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    client_auth: ClientAuth
    expires: Mapping[str, dt.datetime]

    def seconds_left(self) -> dict[str, float]:
        """The seconds until the certificates expire: "server" and, if there is one, "client_ca"."""
        now = dt.datetime.now(dt.UTC)
        return {name: (at - now).total_seconds() for name, at in self.expires.items()}

    def make_context(self) -> ssl.SSLContext:
        """Makes the context of a server that speaks HTTP/1.1.

        Raises:
            ssl.SSLError: OpenSSL refuses a certificate.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        with self.as_files() as (chain, key, *_):
            context.load_cert_chain(chain, key)
        if self.client_ca is not None:
            context.load_verify_locations(cadata=self.client_ca.decode())
            is_required = self.client_auth == "required"
            context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL
        return context

    @contextmanager
    def as_files(self) -> Iterator[list[str]]:
        """Paths of the chain, the key and the authorities, for libraries that only read files.

        The files are in memory, because those on disk may have changed since the check.
        """
        parts = [self.chain, self.key, *([] if self.client_ca is None else [self.client_ca])]
        with ExitStack() as stack:
            paths = []
            for part in parts:
                file = stack.enter_context(os.fdopen(os.memfd_create("leadline-tls"), "wb"))
                file.write(part)
                file.flush()
                paths.append(f"/proc/self/fd/{file.fileno()}")
            yield paths


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """The files of the certificates, as the options name them."""

    certificate: Path
    key: Path
    client_ca: Path | None
    client_auth: ClientAuth

    @classmethod
    def of(cls, settings: Settings) -> "TlsFiles | None":
        """The files that the settings name; None without TLS.

        Raises:
            TlsError: an option is missing, or has no effect.
        """
        certificate, key = settings.tls_cert, settings.tls_key
        client_ca, client_auth = settings.tls_client_ca, settings.tls_client_auth
        if certificate is None or key is None:
            for option, value in (("cert", certificate), ("key", key), ("client-ca", client_ca)):
                if value is not None:
                    raise TlsError(f"--tls-{option} needs both --tls-cert and --tls-key")
            if client_auth != "none":
                raise TlsError("--tls-client-auth needs both --tls-cert and --tls-key")
            return None
        if (client_ca is None) != (client_auth == "none"):
            raise TlsError(
                f"--tls-client-auth is {client_auth}: give it with --tls-client-ca, "
                "the authorities of clients' certificates, as optional or required; or neither"
            )
        return cls(certificate=certificate, key=key, client_ca=client_ca, client_auth=client_auth)

    def load(self) -> Certificates:
        """Reads and checks the files; blocks.

        Raises:
            TlsError: a file cannot be read or used, or they do not belong together.
        """
        chain, key = _read("--tls-cert", self.certificate), _read("--tls-key", self.key)
        parsed = _parse("--tls-cert", self.certificate, chain)
        _check_key(self, parsed[0], key)
        expires = {"server": min(part.not_valid_after_utc for part in parsed)}
        for part in parsed:
            _check_time("--tls-cert", self.certificate, part)
        client_ca = None
        if self.client_ca is not None:
            client_ca = _read("--tls-client-ca", self.client_ca)
            expires["client_ca"] = self._check_authorities(self.client_ca, client_ca)
        certificates = Certificates(
            chain=chain,
            key=key,
            client_ca=client_ca,
            client_auth=self.client_auth,
            expires=expires,
        )
        try:
            certificates.make_context()
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(
                f"OpenSSL refuses the certificates of --tls-cert and --tls-client-ca: {error}"
            ) from error
        return certificates

    def _check_authorities(self, path: Path, pem: bytes) -> dt.datetime:
        """Returns when the first valid authority expires; a bundle may have older ones."""
        authorities = _parse("--tls-client-ca", path, pem)
        now = dt.datetime.now(dt.UTC)
        valid = [part.not_valid_after_utc for part in authorities if part.not_valid_after_utc > now]
        if not valid:
            _check_time("--tls-client-ca", path, authorities[0])
        return min(valid)

    def version(self) -> tuple[tuple[int, ...] | None, ...]:
        """What changes when a file, or a link to it, is replaced or written; blocks."""
        return tuple(
            _version(path) for path in (self.certificate, self.key, self.client_ca) if path
        )


class TlsCertificates:
    """The certificates in force, which follow their files.

    Attributes:
        current: the certificates in force.
        on_reload: called after each reload: with None, or with the reason of a refusal.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Loads the files; `follow` follows them.

        Raises:
            TlsError: they cannot be used.
        """
        self._files = files
        # Before the files are read, so that a later change is never missed.
        self._known = files.version()
        self.current = files.load()
        self.on_reload: list[Callable[[str | None], None]] = []
        self._appliers: list[Callable[[Certificates], Awaitable[None]]] = []
        self._asked = asyncio.Event()

    def apply_with(self, apply: Callable[[Certificates], Awaitable[None]]) -> None:
        """Adds a function that puts new certificates in force, or raises an error."""
        self._appliers.append(apply)

    def reload(self) -> None:
        """Asks `follow` to look at once, and to refuse at once what cannot be used."""
        self._asked.set()

    async def follow(self) -> None:
        """Follows the files until it is cancelled."""
        last, looks = self._known, 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._asked.wait()
            is_asked = self._asked.is_set()
            self._asked.clear()
            version = await asyncio.to_thread(self._files.version)
            if version == self._known and not is_asked:
                continue
            last, looks = version, looks + 1 if version == last else 0
            if await self._try(is_last=is_asked or looks >= _PATIENCE):
                self._known = version

    async def _try(self, *, is_last: bool) -> bool:
        """Tries to put the files in force; returns whether to wait for another version of them."""
        try:
            certificates = await asyncio.to_thread(self._files.load)
        except Exception as error:  # noqa: BLE001 - as below
            if is_last:
                self._refuse(str(error))
            return is_last
        if certificates == self.current:
            _LOG.debug("the certificates are unchanged")
            return True
        try:
            for apply in self._appliers:
                await apply(certificates)
        except Exception as error:  # noqa: BLE001 - whatever it is, the old ones stay in force
            self._refuse(str(error) or type(error).__name__)
            return True
        self.current = certificates
        expires = {name: at.isoformat() for name, at in certificates.expires.items()}
        _LOG.info("new certificates are in force", expires=expires)
        for tell in self.on_reload:
            tell(None)
        return True

    def _refuse(self, why: str) -> None:
        _LOG.error("new certificates are refused, and the old ones stay in force", why=why)
        for tell in self.on_reload:
            tell(why)


def load_certificates(settings: Settings) -> TlsCertificates | None:
    """Loads the certificates that the settings name; None without TLS.

    Raises:
        TlsError: an option is missing, or the files cannot be used.
    """
    files = TlsFiles.of(settings)
    return None if files is None else TlsCertificates(files)


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"{option} {path} cannot be read: {error.strerror}") from error


def _parse(option: str, path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise TlsError(f"{option} {path} has no certificate in PEM form: {error}") from error


def _check_key(files: TlsFiles, certificate: x509.Certificate, pem: bytes) -> None:
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise TlsError(
            f"--tls-key {files.key} is encrypted: store it without a passphrase, "
            "in a file that only the server's user can read"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TlsError(f"--tls-key {files.key} has no private key in PEM form") from error
    try:
        is_its_key = key.public_key() == certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TlsError(f"--tls-cert {files.certificate} has a key of unknown kind") from error
    if not is_its_key:
        raise TlsError(
            f"--tls-key {files.key} is not the key of the first certificate in "
            f"--tls-cert {files.certificate}"
        )


def _check_time(option: str, path: Path, certificate: x509.Certificate) -> None:
    now = dt.datetime.now(dt.UTC)
    name = certificate.subject.rfc4514_string()
    if certificate.not_valid_after_utc <= now:
        raise TlsError(
            f"{option} {path}: the certificate {name} has expired at "
            f"{certificate.not_valid_after_utc.isoformat()}: renew it"
        )
    if certificate.not_valid_before_utc > now:
        raise TlsError(
            f"{option} {path}: the certificate {name} is not valid before "
            f"{certificate.not_valid_before_utc.isoformat()}: check the clock of this machine"
        )


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
