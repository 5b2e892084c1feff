"""Certificates for tests: a certificate authority, and what it issues to servers and clients."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOSTS = ("localhost", "127.0.0.1", "::1")

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str = "server") -> tuple[Path, Path]:
        """Writes `name.pem` and `name.key`; returns the paths of the certificate and the key."""
        folder.mkdir(parents=True, exist_ok=True)
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(self.certificate)
        key.touch(mode=0o600)
        key.write_bytes(self.key)
        return certificate, key


class Authority:
    """A certificate authority.

    Attributes:
        pem: its certificate.
    """

    def __init__(self, name: str = "an authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        key_usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            self._builder(self._name, self._key, days=(-1, 365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(key_usage, critical=True)
        )
        self.pem = _pem(builder.sign(self._key, hashes.SHA256()))

    def server(self, *hosts: str, days: tuple[float, float] = (-1, 30)) -> Pair:
        """Issues a server's certificate.

        Args:
            hosts: host names and addresses; by default those of loopback.
            days: the days from now at which it becomes valid and at which it expires.
        """
        names = [_host(host) for host in hosts or HOSTS]
        return self._issue("server", names, ExtendedKeyUsageOID.SERVER_AUTH, days)

    def client(
        self, name: str = "client", uri: str | None = None, days: tuple[float, float] = (-1, 30)
    ) -> Pair:
        """Issues a client's certificate.

        Args:
            name: the common name.
            uri: the only subject alternative name, if any.
            days: see `server`.
        """
        names = [x509.UniformResourceIdentifier(uri)] if uri else []
        return self._issue(name, names, ExtendedKeyUsageOID.CLIENT_AUTH, days)

    def write(self, folder: Path, name: str = "ca") -> Path:
        """Writes `name.pem`, and returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.pem"
        path.write_bytes(self.pem)
        return path

    def _issue(
        self,
        name: str,
        names: Sequence[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        days: tuple[float, float],
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_name(name), key, days)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Pair(_pem(builder.sign(self._key, hashes.SHA256())), private)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: tuple[float, float]
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * _DAY)
            .not_valid_after(now + days[1] * _DAY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(authority, critical=False)
        )


def channel_credentials(
    authority: Authority | None = None, pair: Pair | None = None
) -> grpc.ChannelCredentials:
    """Makes credentials of a client that trusts an authority, and may have a certificate."""
    return grpc.ssl_channel_credentials(
        None if authority is None else authority.pem,
        None if pair is None else pair.key,
        None if pair is None else pair.certificate,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
