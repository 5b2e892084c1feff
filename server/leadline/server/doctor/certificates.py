"""Checks the certificates of TLS."""

import stat
from pathlib import Path

from cryptography import x509

from leadline.server.doctor.check import Check, Status
from leadline.server.settings import Settings
from leadline.server.tls import Certificates, TlsError, TlsFiles

_NAME = "certificates"
_DAY = 86_400.0

# A certificate should be renewed with a third of its lifetime left, and not later than this.
_SOON_DAYS, _SOON_SHARE = 14, 1 / 3


def check_certificates(settings: Settings) -> Check:
    """Checks that the certificates can be used, and for how long."""
    try:
        files = TlsFiles.of(settings)
        if files is None:
            return Check(_NAME, Status.SKIPPED, "no TLS: --tls-cert is not set")
        certificates = files.load()
    except TlsError as error:
        return Check(_NAME, Status.FAILED, str(error), advice="replace the file, or the option")
    leaf = x509.load_pem_x509_certificates(certificates.chain)[0]
    names = _names(leaf)
    days = {name: left / _DAY for name, left in certificates.seconds_left().items()}
    detail = {"names": names, "days_left": {name: round(left, 1) for name, left in days.items()}}
    shown = ", ".join(f"{name} for {left:.0f} days" for name, left in days.items())
    value = f"for {', '.join(names) or 'no name'}; {shown}"
    warning = _warning(certificates, leaf, files.key, names)
    if warning is not None:
        return Check(_NAME, Status.WARNING, value, detail, warning)
    return Check(_NAME, Status.OK, value, detail)


def _warning(
    certificates: Certificates, leaf: x509.Certificate, key: Path, names: list[str]
) -> str | None:
    """What to do about valid certificates, if anything."""
    if not names:
        return "clients refuse a certificate without subject alternative names: issue another"
    if key.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        return f"everyone may read or change the private key: chmod 600 {key}"
    lifetime = (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds()
    soon = min(_SOON_DAYS * _DAY, _SOON_SHARE * lifetime)
    for name, left in certificates.seconds_left().items():
        if left < soon:
            return f"renew the certificate of {name.replace('_', ' ')}; a running server notices it"
    return None


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in extension.value]
