"""The errors of the service's domain, which know nothing of gRPC.

    ServiceError
    ├── InvalidArgumentError      the request itself is wrong; says which fields
    ├── NotFoundError             no such job, sweep, model, epoch or variant
    ├── AlreadyExistsError        the request id stands for another job or sweep
    ├── FailedPreconditionError   not in the present state of things
    ├── ResourceExhaustedError    a bounded queue is full; says when to try again
    ├── MessageTooLargeError      a message has more bytes than the server takes
    ├── DataLossError             a file of the server's is missing or damaged
    ├── StorageError              the disk or the database takes no writes
    ├── DeadlineExceededError     the caller's deadline passed while it waited
    ├── UnimplementedError        a part of a protocol that this server leaves out
    └── UnavailableError          the server shuts down

`leadline.server.api.errors` has the one table that maps them to gRPC status.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from leadline.models.spec import Violation

# A status travels in headers, which have little room: what a caller sent is
# not repeated to it at any length.
_LONGEST_TEXT = 500
_MOST_VIOLATIONS = 20


def shorten(text: str) -> str:
    """The text, or as much of it as an error has room for."""
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "..."


class ServiceError(Exception):
    """An error that callers are told of.

    Attributes:
        reason: what went wrong, in UPPER_SNAKE_CASE, for programs.
        metadata: particulars for programs.
    """

    def __init__(
        self, message: str, *, reason: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(shorten(message))
        self.reason = reason
        self.metadata = dict(metadata or {})


class InvalidArgumentError(ServiceError):
    """The request is wrong, whatever the state of the server.

    Attributes:
        violations: what is wrong with which field, at least one.
    """

    def __init__(self, violations: Sequence[Violation], *, reason: str = "INVALID_FIELD") -> None:
        kept = [
            replace(one, description=shorten(one.description))
            for one in violations[:_MOST_VIOLATIONS]
        ]
        summary = "; ".join(f"{one.field}: {one.description}" for one in kept)
        super().__init__(summary, reason=reason)
        self.violations = tuple(kept)

    @classmethod
    def of(cls, field: str, description: str) -> "InvalidArgumentError":
        """The error of a single field."""
        return cls([Violation(field=field, description=description)])


class NotFoundError(ServiceError):
    """There is no such resource.

    Attributes:
        resource_type: "job", "sweep", "model", "epoch" or "variant".
        resource_name: what was asked for.
    """

    def __init__(self, resource_type: str, resource_name: str, advice: str) -> None:
        super().__init__(
            f"there is no {resource_type} {shorten(resource_name)}: {advice}",
            reason=f"{resource_type.upper()}_NOT_FOUND",
        )
        self.resource_type = resource_type
        self.resource_name = shorten(resource_name)


class AlreadyExistsError(ServiceError):
    """What was to be made exists, and is not the same.

    Attributes:
        resource_name: what exists.
    """

    def __init__(self, message: str, *, reason: str, resource_name: str) -> None:
        super().__init__(message, reason=reason)
        self.resource_name = resource_name


class FailedPreconditionError(ServiceError):
    """The request is sound but not in the present state of things."""


class ResourceExhaustedError(ServiceError):
    """A bound on work is reached.

    Attributes:
        retry_after: after how many seconds it is worth trying again.
    """

    def __init__(self, message: str, *, reason: str, retry_after: float) -> None:
        super().__init__(message, reason=reason)
        self.retry_after = retry_after


class MessageTooLargeError(ServiceError):
    """A message has more bytes than the server takes."""

    def __init__(self, size: str, limit: int) -> None:
        # "larger than max" is what gRPC's own servers say.
        super().__init__(
            f"a message is larger than max ({size} vs. {limit} bytes): send less at a time, "
            "or start the server with more --max-message-bytes",
            reason="MESSAGE_TOO_LARGE",
            metadata={"limit_bytes": str(limit)},
        )


class DataLossError(ServiceError):
    """A file that the server wrote is missing or damaged."""


class StorageError(ServiceError):
    """The disk or the database failed: what was asked for did not happen."""


class DeadlineExceededError(ServiceError):
    """The caller's deadline passed before its work began."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="DEADLINE_EXCEEDED")


class UnimplementedError(ServiceError):
    """A part of a protocol that this server leaves out; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="NOT_SUPPORTED")


class UnavailableError(ServiceError):
    """The server shuts down; the same call works after its restart."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="SHUTTING_DOWN")
