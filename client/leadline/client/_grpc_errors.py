"""Converts grpc's exceptions to those of `leadline.client`."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import grpc

from leadline.client._error_details import decode_details, decode_status
from leadline.client._errors import (
    STATUS_ERRORS,
    LeadlineError,
    RpcError,
    TlsError,
    UnavailableError,
    UnknownError,
)

# grpc.aio's error for a message sent on a call that has just ended; it hides the
# status of the call.
_NOT_SENT = "Internal error from Core"

# What grpc says of an unavailable server if TLS has failed for certain, and what that means.
_TLS_FAILURES = {
    "CERTIFICATE_VERIFY_FAILED: certificate has expired": (
        "the server's certificate has expired: its operator must renew it, unless the clock of "
        "this machine is wrong"
    ),
    "CERTIFICATE_VERIFY_FAILED: certificate is not yet valid": (
        "the server's certificate is not valid yet: check the clocks of both machines"
    ),
    "CERTIFICATE_VERIFY_FAILED: (unable to|self.signed)": (
        "the server's certificate is not signed by a known authority: name the file of its "
        "authority with `ca` (--ca)"
    ),
    "CERTIFICATE_VERIFY_FAILED: (?P<reason>[^:]*)": (
        "the server's certificate is not valid: {reason}"
    ),
    "Hostname Verification Check failed|is not in peer certificate": (
        "the server's certificate is for another name than the target's: use a name of the "
        "certificate as the target, or give one with `server_name` (--server-name)"
    ),
    "WRONG_VERSION_NUMBER": (
        "the server does not use TLS on this port: check the port, or leave out TLS (https://, "
        "--tls)"
    ),
    # With TLS 1.3 a server refuses a client only after the handshake, by an alert.
    r"failed to connect to all addresses.*Unwrap failed \(TSI_DATA_CORRUPTED\)": (
        "the server has refused the TLS connection: it needs a client certificate that it "
        "trusts, and that has not expired: give one with `cert` and `key` (--cert, --key)"
    ),
}

# A server that wants TLS closes unencrypted connections; one that wants a client certificate may
# close the others. But so does one that stops.
_CLOSED_AT_ONCE = "failed to connect to all addresses.*Socket closed"
_CLOSED_MESSAGE = (
    "the server closed the connection at once: it may need TLS (https://, --tls) or a client "
    "certificate that it trusts (`cert` and `key`, --cert, --key), or it is stopping"
)

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
        TlsError: there is no TLS connection.
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


def from_grpc(error: grpc.RpcError) -> LeadlineError:
    """Converts an exception of grpc."""
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return _unavailable(error)
    if error.code() is grpc.StatusCode.INTERNAL and error.details() == _NOT_SENT:
        return UnavailableError("the call ended while a message was being sent")
    return _rpc_error(error, STATUS_ERRORS.get(error.code(), UnknownError))


def _unavailable(error: grpc.RpcError) -> LeadlineError:
    details = error.details() or ""
    for pattern, meaning in _TLS_FAILURES.items():
        if match := re.search(pattern, details):
            return TlsError(meaning.format(**match.groupdict()))
    if re.search(_CLOSED_AT_ONCE, details):
        return UnavailableError(_CLOSED_MESSAGE)
    return _rpc_error(error, UnavailableError)


def _rpc_error(error: grpc.RpcError, kind: type[RpcError]) -> RpcError:
    # The two APIs of grpc have different types for pairs of metadata.
    metadata: Any = error.trailing_metadata()
    return kind(error.details() or "", decode_details(metadata))


def from_status(status: Any) -> RpcError:
    """Converts a `google.rpc.Status`, an error within a message."""
    kind = _ERRORS_BY_NUMBER.get(status.code, UnknownError)
    return kind(status.message, decode_status(status.SerializeToString()))
