"""Adapts a `Call` to the `grpc.aio.ServicerContext` that servicers expect."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import grpc
from grpc import aio

from leadline.server.errors import InvalidArgumentError
from leadline.server.identity import Identity
from leadline.server.transport.call import Call

# The key of a client's certificate in gRPC's authentication context.
_CERTIFICATE = "x509_pem_cert"


class CallContext(aio.ServicerContext[Any, Any]):
    """The context argument of a servicer's method.

    Source: `grpc.aio.ServicerContext`, which documents the methods.

    Args:
        call: the call.
        serialize: how `write` serializes a message; None if messages are bytes.
    """

    def __init__(self, call: Call, serialize: Callable[[Any], bytes] | None = None) -> None:
        self._call = call
        self._serialize = serialize

    @property
    def identity(self) -> Identity:
        """The caller."""
        return self._call.identity

    def peer(self) -> str:
        return self._call.peer

    def time_remaining(self) -> Any:
        return self._call.time_remaining()

    def invocation_metadata(self) -> Any:
        """The caller's metadata: pairs of a key and a text, or bytes.

        Raises:
            InvalidArgumentError: a binary value is malformed.
        """
        try:
            return self._call.metadata()
        except ValueError as error:
            raise InvalidArgumentError.of("metadata", str(error)) from error

    def cancelled(self) -> bool:
        return self._call.is_cancelled

    def done(self) -> bool:
        return self._call.is_done

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._call.add_done_callback(lambda: callback(self))

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        certificate = self._call.certificate
        return {} if certificate is None else {_CERTIFICATE: [certificate.encode()]}

    def peer_identities(self) -> Iterable[bytes] | None:
        return self.auth_context().get(_CERTIFICATE)

    def peer_identity_key(self) -> str | None:
        return _CERTIFICATE if self._call.certificate else None

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> NoReturn:
        self._call.response.set_status(code, details, trailing_metadata)
        raise aio.AbortError(f"the call ends with {code.name}")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def set_code(self, code: grpc.StatusCode) -> None:
        self._call.response.code = code

    def set_details(self, details: str) -> None:
        self._call.response.message = details

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._call.response.trailing = trailing_metadata

    def code(self) -> grpc.StatusCode:
        return self._call.response.code

    def details(self) -> str:
        return self._call.response.message

    def trailing_metadata(self) -> Any:
        return self._call.response.trailing

    def set_compression(self, compression: grpc.Compression) -> None:
        """Does nothing: responses are not compressed."""

    def disable_next_message_compression(self) -> None:
        """Does nothing: responses are not compressed."""

    async def read(self) -> NoReturn:
        """Not supported: the requests of a stream are an argument of its method.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("the requests of a stream are an argument of its method")

    async def write(self, message: Any) -> None:
        """Sends a message, after waiting for flow control."""
        await self._call.response.send(self._serialize(message) if self._serialize else message)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        await self._call.response.start(initial_metadata)
