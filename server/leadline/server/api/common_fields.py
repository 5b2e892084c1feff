"""What several methods have in common: the caller, owners, request ids, sequences, times."""

import uuid
from datetime import datetime
from typing import Any, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio

from leadline.server.errors import InvalidArgumentError
from leadline.server.identity import Identity
from leadline.server.transport.context import CallContext

_PROGRESS_SECONDS = (0.05, 3_600.0)


# As the filter of a listing: the caller.
_ME = "me"


def identity_of(context: aio.ServicerContext[Any, Any]) -> Identity:
    """The caller of a method."""
    return cast(CallContext, context).identity


def to_owner(name: str, context: aio.ServicerContext[Any, Any]) -> str | None:
    """The owner whose resources are listed; None for all owners."""
    return identity_of(context).name if name == _ME else name or None


def to_request_id(text: str) -> str | None:
    """The UUID in its usual form; None if it is unset.

    Raises:
        InvalidArgumentError: the text is not a UUID.
    """
    if not text:
        return None
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise InvalidArgumentError.of("request_id", f"must be a UUID, not {text[:80]!r}") from error


def to_sequence(after_sequence: int) -> int:
    """The sequence.

    Raises:
        InvalidArgumentError: the sequence is negative.
    """
    if after_sequence < 0:
        raise InvalidArgumentError.of(
            "after_sequence", f"must not be negative, is {after_sequence}"
        )
    return after_sequence


def to_interval(duration: Duration, is_set: bool) -> float | None:
    """The interval between progress events in seconds; None if it is unset.

    Raises:
        InvalidArgumentError: the interval is out of range.
    """
    if not is_set:
        return None
    seconds = to_seconds(duration)
    least, most = _PROGRESS_SECONDS
    if not least <= seconds <= most:
        raise InvalidArgumentError.of(
            "progress_interval", f"must be from {least} to {most:.0f} seconds, is {seconds}"
        )
    return seconds


def to_seconds(duration: Duration) -> float:
    """The duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def from_seconds(seconds: float | None) -> Duration | None:
    """The duration; None if it is unset."""
    if seconds is None:
        return None
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration


def from_datetime(moment: datetime | None) -> Timestamp | None:
    """The timestamp; None if it is unset."""
    if moment is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
