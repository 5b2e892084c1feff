"""What the requests that submit and follow have in common."""

import uuid

from google.protobuf.duration_pb2 import Duration

from leadline.server.api.convert import to_seconds
from leadline.server.errors import InvalidArgumentError

_PROGRESS_SECONDS = (0.05, 3_600.0)


def read_request_id(text: str) -> str | None:
    """The UUID in its usual form; None where there is none.

    Raises:
        InvalidArgumentError: it is no UUID.
    """
    if not text:
        return None
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise InvalidArgumentError.of("request_id", f"must be a UUID, not {text[:80]!r}") from error


def read_sequence(after_sequence: int) -> int:
    """The sequence.

    Raises:
        InvalidArgumentError: it is negative.
    """
    if after_sequence < 0:
        raise InvalidArgumentError.of(
            "after_sequence", f"must not be negative, is {after_sequence}"
        )
    return after_sequence


def read_interval(duration: Duration, is_set: bool) -> float | None:
    """The interval between progress events in seconds; None where it is unset.

    Raises:
        InvalidArgumentError: it is out of range.
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
