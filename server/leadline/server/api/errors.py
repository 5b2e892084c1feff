"""Maps domain errors to gRPC status in one table, and builds the status to send.

Every status that a caller causes carries `google.rpc` details (AIP-193): an
ErrorInfo with a reason for programs. Depending on the error, they also name the
wrong fields, the missing resource, or when to try again.
"""

from collections.abc import Callable, Iterable, MutableMapping

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from leadline.server.errors import (
    AlreadyExistsError,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    MessageTooLargeError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    ServiceError,
    StorageError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    shorten,
)
from leadline.server.transport.response import MetadataPairs

# Clients accept 8 KiB of trailers, in which the status is base64. An error may quote text
# of the caller, so texts are cut until it fits, with at most 20 field violations.
_MAX_STATUS_BYTES = 4096
_TEXT_LIMITS = (500, 100, 40)

ERROR_DOMAIN = "leadline"
DETAILS_KEY = "grpc-status-details-bin"


def _field_violations(error: InvalidArgumentError) -> Iterable[Message]:
    yield error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(
                field=violation.field, description=violation.description
            )
            for violation in error.violations
        ]
    )


def _missing_resource(error: NotFoundError) -> Iterable[Message]:
    yield error_details_pb2.ResourceInfo(
        resource_type=error.resource_type, resource_name=error.resource_name
    )


def _existing_resource(error: AlreadyExistsError) -> Iterable[Message]:
    kind = error.resource_name.partition("/")[0].removesuffix("s")
    yield error_details_pb2.ResourceInfo(resource_type=kind, resource_name=error.resource_name)


def _precondition(error: FailedPreconditionError) -> Iterable[Message]:
    violation = error_details_pb2.PreconditionFailure.Violation(
        type=error.reason,
        subject=error.metadata.get("job") or error.metadata.get("sweep", ""),
        description=str(error),
    )
    yield error_details_pb2.PreconditionFailure(violations=[violation])


def _retry(error: ResourceExhaustedError) -> Iterable[Message]:
    delay = Duration()
    delay.FromNanoseconds(int(error.retry_after * 1e9))
    yield error_details_pb2.RetryInfo(retry_delay=delay)


def _no_details(_error: ServiceError) -> Iterable[Message]:
    return ()


_STATUS_OF: dict[type[ServiceError], tuple[grpc.StatusCode, Callable[..., Iterable[Message]]]] = {
    InvalidArgumentError: (grpc.StatusCode.INVALID_ARGUMENT, _field_violations),
    NotFoundError: (grpc.StatusCode.NOT_FOUND, _missing_resource),
    AlreadyExistsError: (grpc.StatusCode.ALREADY_EXISTS, _existing_resource),
    FailedPreconditionError: (grpc.StatusCode.FAILED_PRECONDITION, _precondition),
    ResourceExhaustedError: (grpc.StatusCode.RESOURCE_EXHAUSTED, _retry),
    MessageTooLargeError: (grpc.StatusCode.RESOURCE_EXHAUSTED, _no_details),
    DataLossError: (grpc.StatusCode.DATA_LOSS, _no_details),
    DeadlineExceededError: (grpc.StatusCode.DEADLINE_EXCEEDED, _no_details),
    StorageError: (grpc.StatusCode.UNAVAILABLE, _no_details),
    UnavailableError: (grpc.StatusCode.UNAVAILABLE, _no_details),
    UnauthenticatedError: (grpc.StatusCode.UNAUTHENTICATED, _no_details),
    PermissionDeniedError: (grpc.StatusCode.PERMISSION_DENIED, _no_details),
    UnimplementedError: (grpc.StatusCode.UNIMPLEMENTED, _no_details),
}


def to_status(error: ServiceError) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """The status that a caller receives for an error, small enough for trailers.

    Removes the tracebacks of the error. Their frames refer to the request, and often to a future
    that refers to the error: this reference cycle would keep the request until a garbage
    collection.
    """
    _remove_tracebacks(error)
    code, details_of = _STATUS_OF[type(error)]
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=ERROR_DOMAIN, metadata=error.metadata
    )
    details = [info, *details_of(error)]
    for limit in _TEXT_LIMITS:
        status = status_pb2.Status(code=code.value[0], message=str(error))
        for detail in details:
            _shorten_texts(detail, limit)
            status.details.add().Pack(detail)
        if status.ByteSize() <= _MAX_STATUS_BYTES:
            break
    return code, status


def status_to_send(error: ServiceError) -> tuple[grpc.StatusCode, str, MetadataPairs]:
    """The arguments of `Response.set_status` for an error."""
    code, status = to_status(error)
    return code, str(error), ((DETAILS_KEY, status.SerializeToString()),)


def _remove_tracebacks(error: BaseException | None) -> None:
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


def _shorten_texts(message: Message, limit: int) -> None:
    """Cuts each text of a message and its nested messages to this many bytes."""
    for field, value in message.ListFields():
        if isinstance(value, str):
            setattr(message, field.name, shorten(value, limit))
        elif isinstance(value, MutableMapping):  # metadata of an ErrorInfo
            for key in value:
                value[key] = shorten(value[key], limit)
        elif field.type == field.TYPE_MESSAGE:
            for part in [value] if isinstance(value, Message) else value:
                _shorten_texts(part, limit)
