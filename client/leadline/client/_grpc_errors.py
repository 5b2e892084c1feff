"""Converts grpc's exceptions to those of `leadline.client`."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import grpc

from leadline.client._error_details import decode_details, decode_status
from leadline.client._errors import STATUS_ERRORS, RpcError, UnavailableError, UnknownError

# grpc.aio's error for a message sent on a call that has just ended; it hides the
# status of the call.
_NOT_SENT = "Internal error from Core"

_ERRORS_BY_NUMBER = {code.value[0]: error for code, error in STATUS_ERRORS.items()}


class Closeable(Protocol):
    """A connection for calls."""

    def check_open(self) -> None:
        """Raises `ClientClosedError` if the connection is closed."""


@contextmanager
def sdk_errors(connection: Closeable) -> Iterator[None]:
    """Converts grpc's exceptions inside the block to the SDK's exceptions.

    Raises:
        RpcError: the server answered with an error.
        ClientClosedError: the connection was closed meanwhile. grpc.aio then
            cancels the reader, which would look like a cancelled task.
    """
    try:
        yield
    except grpc.RpcError as error:
        connection.check_open()
        # From None, because grpc's exception of a synchronous stream is the call
        # itself: the traceback would keep it and its channel alive.
        raise from_grpc(error) from None
    except asyncio.CancelledError:
        connection.check_open()
        raise


def from_grpc(error: grpc.RpcError) -> RpcError:
    """Converts an exception of grpc."""
    if error.code() is grpc.StatusCode.INTERNAL and error.details() == _NOT_SENT:
        return UnavailableError("the call ended while a message was being sent")
    kind = STATUS_ERRORS.get(error.code(), UnknownError)
    # The two APIs of grpc have different types for pairs of metadata.
    metadata: Any = error.trailing_metadata()
    return kind(error.details() or "", decode_details(metadata))


def from_status(status: Any) -> RpcError:
    """Converts a `google.rpc.Status`, an error within a message."""
    kind = _ERRORS_BY_NUMBER.get(status.code, UnknownError)
    return kind(status.message, decode_status(status.SerializeToString()))
