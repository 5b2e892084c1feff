"""The names in client certificates, which the transport has verified."""

import functools
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

_SCHEME = "://"


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What identifies the holder of a certificate.

    Attributes:
        names: the URIs among its subject alternative names; without any, its common name.
        expires: Unix time in seconds.
    """

    names: tuple[str, ...]
    expires: float


@functools.lru_cache(maxsize=4_096)
def parse_certificate(pem: str) -> ClientCertificate | None:
    """The names in a certificate; None if it is malformed.

    Args:
        pem: the certificate first; others, such as those of its chain, may follow.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        return ClientCertificate(
            names=_uris(certificate) or _common_name(certificate),
            expires=certificate.not_valid_after_utc.timestamp(),
        )
    except ValueError:
        return None


def _uris(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.value.get_values_for_type(x509.UniformResourceIdentifier))


def _common_name(certificate: x509.Certificate) -> tuple[str, ...]:
    names = [
        str(attribute.value)
        for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    ]
    # An authority that constrains URIs may sign any common name, also one that looks like a URI.
    return tuple(names) if len(names) == 1 and _SCHEME not in names[0] else ()
