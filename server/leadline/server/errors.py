"""The errors of the domain, independent of gRPC.

    ServiceError
    ├── InvalidArgumentError      the request itself is invalid; names the fields
    ├── NotFoundError             no such job, sweep, model, epoch or variant
    ├── AlreadyExistsError        the request id belongs to another job or sweep
    ├── FailedPreconditionError   the current state does not allow the request
    ├── ResourceExhaustedError    a limit is reached; states when to try again
    ├── MessageTooLargeError      a message has more bytes than the server accepts
    ├── DataLossError             a file of the server is missing or damaged
    ├── StorageError              the disk or the database failed
    ├── DeadlineExceededError     the deadline passed, or a message took too long to arrive
    ├── UnauthenticatedError      the caller has no valid credentials
    ├── PermissionDeniedError     the caller's role, or the resource's owner, forbids it
    ├── UnimplementedError        a part of a protocol that is not supported
    └── UnavailableError          the server shuts down

`leadline.server.api.errors` maps them to gRPC status, in one table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from leadline.models.spec import Violation

# A status is sent in headers, whose size is limited: longer texts are cut. UTF-8 bytes.
_MAX_TEXT = 500
_MAX_VIOLATIONS = 20


def shorten(text: str, limit: int = _MAX_TEXT) -> str:
    """Cuts a text to `limit` bytes of UTF-8, by default the most that an error may have."""
    start = text[:limit]
    raw = start.encode(errors="replace")
    if len(start) == len(text) and len(raw) <= limit:
        return text
    return raw[:limit].decode(errors="ignore") + "..."


class ServiceError(Exception):
    """An error that is reported to the caller.

    Attributes:
        reason: the cause in UPPER_SNAKE_CASE, for programs.
        metadata: details for programs.
    """

    def __init__(
        self, message: str, *, reason: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(shorten(message))
        self.reason = reason
        self.metadata = dict(metadata or {})


class InvalidArgumentError(ServiceError):
    """The request is invalid, in every state of the server.

    Attributes:
        violations: the invalid fields with descriptions, at least one.
    """

    def __init__(self, violations: Sequence[Violation], *, reason: str = "INVALID_FIELD") -> None:
        kept = [
            replace(violation, description=shorten(violation.description))
            for violation in violations[:_MAX_VIOLATIONS]
        ]
        summary = "; ".join(f"{violation.field}: {violation.description}" for violation in kept)
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
        resource_name: the requested resource.
    """

    def __init__(self, resource_type: str, resource_name: str, advice: str) -> None:
        super().__init__(
            f"there is no {resource_type} {shorten(resource_name)}: {advice}",
            reason=f"{resource_type.upper()}_NOT_FOUND",
        )
        self.resource_type = resource_type
        self.resource_name = shorten(resource_name)


class AlreadyExistsError(ServiceError):
    """The resource already exists, with other contents.

    Attributes:
        resource_name: the existing resource.
    """

    def __init__(self, message: str, *, reason: str, resource_name: str) -> None:
        super().__init__(message, reason=reason)
        self.resource_name = resource_name


class FailedPreconditionError(ServiceError):
    """The request is valid, but the current state does not allow it."""


class ResourceExhaustedError(ServiceError):
    """A limit on work is reached.

    Attributes:
        retry_after: seconds after which to try again.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        retry_after: float,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.retry_after = retry_after


class MessageTooLargeError(ServiceError):
    """A message has more bytes than the server accepts."""

    def __init__(self, size: str, limit: int) -> None:
        # "larger than max" is the wording of gRPC's own servers.
        super().__init__(
            f"a message is larger than max ({size} vs. {limit} bytes): send less at a time, "
            "or start the server with more --max-message-bytes",
            reason="MESSAGE_TOO_LARGE",
            metadata={"limit_bytes": str(limit)},
        )


class DataLossError(ServiceError):
    """A file that the server wrote is missing or damaged."""


class StorageError(ServiceError):
    """The disk or the database failed: the request had no effect."""


class DeadlineExceededError(ServiceError):
    """The caller's deadline passed before the work began, or its message took too long."""

    def __init__(self, message: str, *, reason: str = "DEADLINE_EXCEEDED") -> None:
        super().__init__(message, reason=reason)


class UnauthenticatedError(ServiceError):
    """The caller has no valid credentials; the message does not say why."""

    def __init__(self) -> None:
        super().__init__(
            "the call has no valid credentials: send a token as metadata, "
            '"authorization: Bearer TOKEN", or use a client certificate',
            reason="UNAUTHENTICATED",
        )


class PermissionDeniedError(ServiceError):
    """The caller's role, or the owner of the resource, forbids the request."""


class UnimplementedError(ServiceError):
    """A part of a protocol that is not supported; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="NOT_SUPPORTED")


class UnavailableError(ServiceError):
    """The server shuts down; the same call works after its restart."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="SHUTTING_DOWN")
