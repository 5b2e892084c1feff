"""Every error that the SDK raises.

The tree::

    LeadlineError
    ├── RpcError                      the server answered with an error status
    │   ├── InvalidArgumentError      a field is invalid: see `violations`
    │   ├── OutOfRangeError           a value is out of range
    │   ├── NotFoundError             no such job, model, epoch or dataset
    │   ├── AlreadyExistsError        `request_id` belongs to another job
    │   ├── FailedPreconditionError   not possible in this state: a job already ended
    │   ├── AbortedError              a conflict with another call
    │   ├── ResourceExhaustedError    too much in flight: see `retry_delay`
    │   ├── UnauthenticatedError      no valid credentials
    │   ├── PermissionDeniedError     not allowed for these credentials
    │   ├── UnimplementedError        the server does not have this call
    │   ├── UnavailableError          the server is unreachable, or shuts down
    │   ├── DeadlineExceededError     no response within `timeout`
    │   ├── CancelledError            the call was cut off, for example by a proxy
    │   ├── DataLossError             stored data is damaged
    │   ├── InternalError             a bug of the server
    │   └── UnknownError              a status without details
    ├── JobError                      `result()` of a job that did not succeed
    │   ├── JobFailedError            see `job.failure`
    │   └── JobCancelledError
    ├── SweepError                    `result()` of a sweep that did not succeed
    │   ├── SweepFailedError          one of its jobs failed
    │   └── SweepCancelledError
    ├── TlsError                      no TLS connection: a certificate, an authority or a name
    │                                 is wrong, or only one side uses TLS
    ├── EventGapError                 an event is missing
    ├── ClientClosedError             a call on a client that is closed
    └── UsageError                    the SDK cannot be used in this way

The SDK also raises an `RpcError` without a call if it detects the error itself:
an invalid image is an `InvalidArgumentError` at once. The SDK never raises grpc's
exceptions. Files that cannot be read raise the ordinary `OSError`.
"""

from typing import ClassVar

from grpc import StatusCode

from leadline.client._error_details import NO_DETAILS, ErrorDetails, Violation
from leadline.client._text import counted
from leadline.v1.job_pb2 import Job
from leadline.v1.sweep_pb2 import Sweep


class LeadlineError(Exception):
    """The root of every error of this package."""


class RpcError(LeadlineError):
    """A call ended with an error status, from the server or the connection.

    Attributes:
        code: the gRPC status.
        message: a description for people.
        details: the details for programs.
    """

    code: ClassVar[StatusCode] = StatusCode.UNKNOWN

    def __init__(self, message: str, details: ErrorDetails = NO_DETAILS) -> None:
        super().__init__(message, details)
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return self.message or self.code.name

    @property
    def reason(self) -> str:
        """The kind of error in UPPER_SNAKE_CASE, for programs; empty if none was sent."""
        return self.details.reason

    @property
    def metadata(self) -> dict[str, str]:
        """Details of the reason, such as the name of a dataset."""
        return dict(self.details.metadata)

    @property
    def retry_delay(self) -> float | None:
        """Seconds after which the server suggests a retry; None without a suggestion."""
        return self.details.retry_delay


class InvalidArgumentError(RpcError):
    """A field of the request is invalid: see `violations`."""

    code = StatusCode.INVALID_ARGUMENT

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The path of each invalid field, such as "spec.learning_rate", and a description."""
        return self.details.violations


class OutOfRangeError(RpcError):
    """A value is out of range."""

    code = StatusCode.OUT_OF_RANGE


class NotFoundError(RpcError):
    """The job, model, epoch, variant or dataset does not exist."""

    code = StatusCode.NOT_FOUND


class AlreadyExistsError(RpcError):
    """The `request_id` was used with another spec, or with other options."""

    code = StatusCode.ALREADY_EXISTS


class FailedPreconditionError(RpcError):
    """The current state does not allow the call, such as cancelling a job that has succeeded."""

    code = StatusCode.FAILED_PRECONDITION


class AbortedError(RpcError):
    """The call conflicts with another one."""

    code = StatusCode.ABORTED


class ResourceExhaustedError(RpcError):
    """Too much is queued or in flight; `retry_delay` says when to try again."""

    code = StatusCode.RESOURCE_EXHAUSTED


class UnauthenticatedError(RpcError):
    """The call carries no valid credentials."""

    code = StatusCode.UNAUTHENTICATED


class PermissionDeniedError(RpcError):
    """The credentials do not allow the call."""

    code = StatusCode.PERMISSION_DENIED


class UnimplementedError(RpcError):
    """The server does not have the call: it is older, or not a Leadline server."""

    code = StatusCode.UNIMPLEMENTED


class UnavailableError(RpcError):
    """The server is unreachable, or is shutting down."""

    code = StatusCode.UNAVAILABLE


class DeadlineExceededError(RpcError):
    """There was no response, or a job had not ended, within the call's `timeout`."""

    code = StatusCode.DEADLINE_EXCEEDED


class CancelledError(RpcError):
    """The call was cut off, for example by a proxy.

    Not `asyncio.CancelledError`, which the SDK leaves unchanged.
    """

    code = StatusCode.CANCELLED


class DataLossError(RpcError):
    """Data that the server has stored is damaged."""

    code = StatusCode.DATA_LOSS


class InternalError(RpcError):
    """A bug of the server; its log has the traceback."""

    code = StatusCode.INTERNAL


class UnknownError(RpcError):
    """A status without details."""

    code = StatusCode.UNKNOWN


class JobError(LeadlineError):
    """A job ended without success.

    Attributes:
        job: the job in its final state. Its completed epochs stay usable.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.job = job


class JobFailedError(JobError):
    """A job failed; `reason` is for programs, the message for people."""

    def __str__(self) -> str:
        return f"{self.job.name} failed: {self.job.failure.message or self.reason}"

    @property
    def reason(self) -> str:
        """The kind of failure in UPPER_SNAKE_CASE, such as "DIVERGED"."""
        return self.job.failure.reason or "UNKNOWN"


class JobCancelledError(JobError):
    """A job was cancelled."""

    def __str__(self) -> str:
        return f"{self.job.name} was cancelled after {counted(self.job.completed_epochs, 'epoch')}"


class SweepError(LeadlineError):
    """A sweep ended without success.

    Attributes:
        sweep: the sweep in its final state, with its jobs and its table.
    """

    def __init__(self, sweep: Sweep) -> None:
        super().__init__(sweep)
        self.sweep = sweep


class SweepFailedError(SweepError):
    """A job of a sweep failed; the others continued."""

    def __str__(self) -> str:
        counts = self.sweep.counts
        jobs = counted(len(self.sweep.jobs), "job")
        return f"{self.sweep.name} failed: {counts.failed} of {jobs} failed"


class SweepCancelledError(SweepError):
    """A sweep was cancelled."""

    def __str__(self) -> str:
        jobs = counted(len(self.sweep.jobs), "job")
        return f"{self.sweep.name} was cancelled: {self.sweep.counts.cancelled} of {jobs} cancelled"


class TlsError(LeadlineError):
    """The client and the server cannot agree on a TLS connection; the message says what to do.

    The SDK does not try again, because only other settings or certificates help.
    """


class EventGapError(LeadlineError):
    """An event of a job or a sweep is missing, which is a bug of the server."""

    def __init__(self, job: str, expected: int, received: int) -> None:
        super().__init__(job, expected, received)
        self.job = job
        self.expected = expected
        self.received = received

    def __str__(self) -> str:
        return f"{self.job}: expected event {self.expected}, received {self.received}"


class ClientClosedError(LeadlineError):
    """The client is closed: make a new one."""

    def __str__(self) -> str:
        return "the client is closed: make a new one"


class UsageError(LeadlineError):
    """A wrong use of the SDK, such as in a second event loop; the message says what to do."""


STATUS_ERRORS: dict[StatusCode, type[RpcError]] = {
    error.code: error for error in RpcError.__subclasses__()
}
"""The exception of every gRPC status except OK."""


def invalid(field: str, description: str) -> InvalidArgumentError:
    """The error for a field that would be invalid on any server."""
    violation = Violation(field, description)
    return InvalidArgumentError(f"{field}: {description}", ErrorDetails(violations=(violation,)))
