"""Errors: from a status on the wire to an exception with all its details."""

import pickle

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from leadline.client import (
    EventGapError,
    InvalidArgumentError,
    Job,
    JobFailedError,
    ResourceExhaustedError,
    RpcError,
    UnavailableError,
    UnknownError,
    Violation,
)
from leadline.client._error_details import NO_DETAILS, STATUS_KEY, decode_details
from leadline.client._errors import STATUS_ERRORS, invalid
from leadline.client._grpc_errors import from_grpc
from leadline.client._image_errors import renamed
from leadline.v1.job_pb2 import JobFailure


class Failure(grpc.RpcError):
    """A minimal form of the exceptions of grpc."""

    def __init__(
        self, code: grpc.StatusCode, trailing: tuple[tuple[str, str | bytes], ...] | None = ()
    ) -> None:
        self._code = code
        self._trailing = trailing

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "what went wrong"

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:  # type: ignore[override]
        return self._trailing  # type: ignore[return-value]


def packed(*details: Message) -> tuple[tuple[str, str | bytes], ...]:
    status = Status(code=3, message="what went wrong")
    for detail in details:
        packed_detail = Any()
        packed_detail.Pack(detail)
        status.details.append(packed_detail)
    return (("other", "text"), (STATUS_KEY, status.SerializeToString()))


def test_every_status_but_ok_has_an_error_of_its_own() -> None:
    assert set(STATUS_ERRORS) == set(grpc.StatusCode) - {grpc.StatusCode.OK}
    assert len(set(STATUS_ERRORS.values())) == len(STATUS_ERRORS)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name != "OK"])
def test_a_status_becomes_its_error(code: grpc.StatusCode) -> None:
    error = from_grpc(Failure(code))
    assert type(error) is STATUS_ERRORS[code]
    assert error.code is code
    assert str(error) == "what went wrong"
    assert error.retry_delay is None


def test_violations_come_along() -> None:
    request = BadRequest()
    request.field_violations.add(field="spec.blocks", description="too many")
    error = from_grpc(Failure(grpc.StatusCode.INVALID_ARGUMENT, packed(request)))
    assert isinstance(error, InvalidArgumentError)
    assert error.violations == (("spec.blocks", "too many"),)


def test_the_reason_and_the_retry_delay_come_along() -> None:
    info = ErrorInfo(reason="QUEUE_FULL", domain="leadline", metadata={"limit": "3"})
    retry = RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))
    error = from_grpc(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, packed(info, retry)))
    assert isinstance(error, ResourceExhaustedError)
    assert (error.reason, error.metadata, error.retry_delay) == ("QUEUE_FULL", {"limit": "3"}, 1.5)
    assert error.details.domain == "leadline"


def test_details_that_cannot_be_decoded_are_left_out() -> None:
    assert decode_details(((STATUS_KEY, b"\xff\xff\xff"),)) is NO_DETAILS
    assert decode_details(None) is NO_DETAILS


def test_one_detail_that_cannot_be_decoded_leaves_the_others() -> None:
    status = Status()
    status.details.append(
        Any(type_url="type.googleapis.com/google.rpc.BadRequest", value=b"\xff\xff")
    )
    info = Any()
    info.Pack(ErrorInfo(reason="STILL_HERE"))
    status.details.append(info)
    details = decode_details(((STATUS_KEY, status.SerializeToString()),))
    assert (details.reason, details.violations) == ("STILL_HERE", ())


def test_a_detail_of_a_kind_that_is_not_known_is_ignored() -> None:
    details = decode_details(packed(Duration(seconds=1)))
    assert details == NO_DETAILS


def test_an_error_without_trailing_metadata_is_still_told() -> None:
    assert type(from_grpc(Failure(grpc.StatusCode.UNKNOWN, None))) is UnknownError


def test_a_message_that_could_not_be_sent_is_a_broken_connection() -> None:
    class NotSent(Failure):
        def details(self) -> str:
            return "Internal error from Core"

    error = from_grpc(NotSent(grpc.StatusCode.INTERNAL))

    assert isinstance(error, UnavailableError)
    assert "while a message was being sent" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        invalid("images[3]", "empty"),
        UnavailableError("away"),
        EventGapError("jobs/a", 3, 5),
        JobFailedError(Job(name="jobs/a")),
    ],
)
def test_errors_survive_a_process_boundary(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(copy) is type(error)
    assert str(copy) == str(error)


def test_a_failed_job_says_why() -> None:
    failure = JobFailure(reason="DIVERGED", message="the loss is not finite")
    error = JobFailedError(Job(name="jobs/a", failure=failure))
    assert str(error) == "jobs/a failed: the loss is not finite"
    assert error.reason == "DIVERGED"


def test_images_are_counted_over_all_requests_of_a_call() -> None:
    error = renamed(
        invalid("encoded.images[2]", "is corrupt"), lambda index: f"images[{1024 + index}]"
    )
    assert error.violations == (Violation("images[1026]", "is corrupt"),)
    assert str(error) == "images[1026]: is corrupt"


def test_violations_of_other_fields_are_left_as_they_are() -> None:
    error = invalid("top_k", "too many")
    assert renamed(error, str) is error


def test_an_error_without_a_message_tells_its_code() -> None:
    assert str(RpcError("")) == "UNKNOWN"
