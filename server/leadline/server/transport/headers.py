"""The header fields and trailers of gRPC over HTTP/2.

Source: gRPC's own "gRPC over HTTP2" (doc/PROTOCOL-HTTP2.md).
"""

import base64
import binascii
import re
from collections.abc import Iterable
from urllib.parse import quote

from grpc import StatusCode

Fields = list[tuple[bytes, bytes]]
Metadata = tuple[tuple[str, str | bytes], ...]

_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS = {b"H": 3_600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

# In a status message, printable ASCII except the percent sign is not percent-encoded.
_UNQUOTED = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"

_BINARY = "-bin"

# Fields of the call itself; all other fields are the caller's metadata.
_OF_THE_CALL = frozenset(
    {b"te", b"content-type", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding", b"host"}
)

OK_TRAILERS: Fields = [(b"grpc-status", b"0")]


def seconds_of_timeout(value: bytes) -> float:
    """The value of a `grpc-timeout` field in seconds.

    Raises:
        ValueError: the value is malformed.
    """
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise ValueError("grpc-timeout is malformed")
    return int(match[1]) * _SECONDS[match[2]]


def size_of(fields: Iterable[tuple[str | bytes, str | bytes]]) -> int:
    """The size of fields as HTTP/2 defines it: 32 bytes more for each (RFC 9113, 10.5.1)."""
    return sum(len(name) + len(value) + 32 for name, value in fields)


def metadata_of(fields: Iterable[tuple[bytes, bytes]]) -> Metadata:
    """The caller's metadata; values of `-bin` keys are bytes.

    Raises:
        ValueError: the value of a `-bin` key is not base64.
    """
    return tuple(
        (key, value)
        for name, raw in fields
        if name not in _OF_THE_CALL
        for key, value in _metadatum(name.decode("ascii"), raw)
    )


def _metadatum(key: str, raw: bytes) -> Iterable[tuple[str, str | bytes]]:
    if not key.endswith(_BINARY):
        return ((key, raw.decode("latin-1")),)
    try:
        # Clients may join the values of a key by commas, and omit the padding.
        return tuple(
            (key, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True))
            for value in raw.split(b",")
        )
    except binascii.Error as error:
        raise ValueError(f"the metadata {key} is not base64") from error


def fields_of(metadata: Iterable[tuple[str, str | bytes]]) -> Fields:
    """Converts metadata to header fields."""
    return [(key.encode("ascii"), _field_value(key, value)) for key, value in metadata]


def _field_value(key: str, value: str | bytes) -> bytes:
    raw = value.encode("ascii") if isinstance(value, str) else value
    return base64.b64encode(raw).rstrip(b"=") if key.endswith(_BINARY) else raw


def trailers_of(
    code: StatusCode, message: str, metadata: Iterable[tuple[str, str | bytes]] = ()
) -> Fields:
    """The trailers that end a call with a status."""
    status = (b"grpc-status", b"%d" % code.value[0])
    text = quote(message, safe=_UNQUOTED, errors="replace").encode("ascii")
    return [status, *([(b"grpc-message", text)] if text else []), *fields_of(metadata)]
