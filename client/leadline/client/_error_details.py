"""Decodes the details of an error status, for programs.

A server sends a `google.rpc.Status` in the trailing metadata (AIP-193). Skips
details that cannot be decoded, because an error in the details must not hide the
error itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from google.protobuf.message import DecodeError, Message

STATUS_KEY = "grpc-status-details-bin"


Metadatum: TypeAlias = tuple[str, str | bytes]


class Violation(NamedTuple):
    """An invalid field of a request, and a description of the error."""

    field: str
    description: str


@dataclass(frozen=True, kw_only=True)
class ErrorDetails:
    """The details of an error status; empty if none were sent.

    Attributes:
        reason: of `google.rpc.ErrorInfo`, in UPPER_SNAKE_CASE.
        domain: of `google.rpc.ErrorInfo`.
        metadata: of `google.rpc.ErrorInfo`.
        violations: of `google.rpc.BadRequest`.
        retry_delay: of `google.rpc.RetryInfo`, in seconds.
    """

    reason: str = ""
    domain: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()
    retry_delay: float | None = None


NO_DETAILS = ErrorDetails()


def decode_details(trailing_metadata: Iterable[Metadatum] | None) -> ErrorDetails:
    """The details in a call's trailing metadata."""
    for key, value in trailing_metadata or ():
        if key == STATUS_KEY and isinstance(value, bytes):
            return decode_status(value)
    return NO_DETAILS


def decode_status(value: bytes) -> ErrorDetails:
    """The details in a serialized `google.rpc.Status`."""
    # Imported here, because only errors need them and the import takes time.
    from google.rpc import error_details_pb2, status_pb2  # noqa: PLC0415

    status = status_pb2.Status()
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    if not _parse(status, value):
        return NO_DETAILS
    for detail in status.details:
        for message in (info, request, retry):
            if detail.Is(message.DESCRIPTOR):
                _parse(message, detail.value)
    return ErrorDetails(
        reason=info.reason,
        domain=info.domain,
        metadata=dict(info.metadata),
        violations=tuple(Violation(v.field, v.description) for v in request.field_violations),
        retry_delay=(
            retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
            if retry.HasField("retry_delay")
            else None
        ),
    )


def _parse(message: Message, value: bytes) -> bool:
    try:
        message.MergeFromString(value)
    except DecodeError:
        message.Clear()
        return False
    return True
