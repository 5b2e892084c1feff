"""Fields that several resources have: request ids, sequences, times."""

import uuid
from datetime import datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from leadline.server.errors import InvalidArgumentError

_PROGRESS_SECONDS = (0.05, 3_600.0)


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
