"""From grpc's exceptions to those of `leadline.client`."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import grpc

from leadline.client._error_details import decode_details, decode_status
from leadline.client._errors import STATUS_ERRORS, RpcError, UnavailableError, UnknownError

# grpc.aio's error for a message sent on a call that has just ended, instead of the
# status of the call.
_NOT_SENT = "Internal error from Core"

_ERRORS_BY_NUMBER = {code.value[0]: error for code, error in STATUS_ERRORS.items()}


class Closeable(Protocol):
    """A connection that calls are made on."""

    def check_open(self) -> None:
        """Raises `ClientClosedError` if it was closed."""


@contextmanager
def sdk_errors(connection: Closeable) -> Iterator[None]:
    """Turns what grpc raises inside the block into the SDK's own exceptions.

    Raises:
        RpcError: the server answered with an error.
        ClientClosedError: the connection was closed meanwhile. grpc.aio then
            cancels the reader, which would look like a cancelled task.
    """
    try:
        yield
    except grpc.RpcError as error:
        connection.check_open()
        # From None: nothing is lost, and grpc's exception of a synchronous
        # stream is the call itself: a traceback would keep it and its channel alive.
        raise from_grpc(error) from None
    except asyncio.CancelledError:
        connection.check_open()
        raise


def from_grpc(error: grpc.RpcError) -> RpcError:
    """The SDK's exception for one of grpc's."""
    if error.code() is grpc.StatusCode.INTERNAL and error.details() == _NOT_SENT:
        return UnavailableError("the call ended while a message was being sent")
    kind = STATUS_ERRORS.get(error.code(), UnknownError)
    # The two APIs of grpc have different types for it; both are pairs.
    metadata: Any = error.trailing_metadata()
    return kind(error.details() or "", decode_details(metadata))


def from_status(status: Any) -> RpcError:
    """The SDK's exception for a `google.rpc.Status`, an error that came in a message."""
    kind = _ERRORS_BY_NUMBER.get(status.code, UnknownError)
    return kind(status.message, decode_status(status.SerializeToString()))
