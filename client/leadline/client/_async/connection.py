"""A client's connection: its channel, its stubs, and calls that raise the SDK's errors."""

import warnings
from collections.abc import AsyncIterator
from typing import Any, NoReturn, TypeVar

import grpc.aio

from leadline.client._channel import ChannelOptions, normal_target, open_async_channel
from leadline.client._errors import ClientClosedError, RpcError, UsageError
from leadline.client._grpc_errors import sdk_errors
from leadline.client._retry import Attempts, OnReconnect, Reconnection
from leadline.client._runtime import AsyncUnaryCall, async_own_loop, async_sleep
from leadline.client._security import Security
from leadline.v1.inference_service_pb2_grpc import InferenceServiceStub
from leadline.v1.inspection_service_pb2_grpc import InspectionServiceStub
from leadline.v1.training_service_pb2_grpc import TrainingServiceStub

Request = TypeVar("Request")
Response = TypeVar("Response")


class AsyncStubs:
    """The stubs of all services on one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.training = TrainingServiceStub(channel)
        self.inference = InferenceServiceStub(channel)
        self.inspection = InspectionServiceStub(channel)


class AsyncConnection:
    """A channel that opens on first use; `AsyncClient` documents its attributes.

    After it is closed, every use raises a `ClientClosedError`. In a second event loop, every
    use raises a `UsageError`. Calls raise an `RpcError` if the server answers with an error.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout: float,
        reconnect_timeout: float | None,
        security: Security,
        options: ChannelOptions,
    ) -> None:
        self.target = normal_target(target)
        self.timeout = timeout
        self.reconnect_timeout = reconnect_timeout
        self.closed = False
        self._credentials = security.channel_credentials(target)
        self._token = security.token_reader()
        self._options = [*_server_name(security), *options]
        self._channel: grpc.aio.Channel | None = None
        self._stubs: AsyncStubs | None = None
        self._loop: object = None

    def __reduce__(self) -> NoReturn:
        raise UsageError(
            "clients and handles cannot be pickled: pass the name, and use `client.job(name)` there"
        )

    @property
    def channel(self) -> grpc.aio.Channel:
        """The open channel."""
        self.check_open()
        if self._channel is None:
            # Opened here, because a grpc.aio channel belongs to the loop that creates it.
            self._loop = async_own_loop(self._loop)
            self._channel = open_async_channel(
                self.target, self._credentials, self._options, self._token
            )
        return self._channel

    @property
    def stubs(self) -> AsyncStubs:
        """The stubs of all services."""
        channel = self.channel
        if self._stubs is None:
            self._stubs = AsyncStubs(channel)
        return self._stubs

    async def call(
        self,
        method: AsyncUnaryCall[Request, Response],
        request: Request,
        attempts: Attempts | None = None,
    ) -> Response:
        """The response to a unary call; retries if the server is unavailable.

        `attempts` limits and counts the attempts, by default within `timeout`.
        """
        attempts = attempts or Attempts(self.timeout)
        while True:
            try:
                return await self.call_once(method, request, attempts.remaining())
            except RpcError as error:
                await async_sleep(attempts.delay(error))

    async def call_once(
        self, method: AsyncUnaryCall[Request, Response], request: Request, seconds: float
    ) -> Response:
        """The response to a unary call within a number of seconds; does not retry."""
        self.check_open()
        with sdk_errors(self):
            return await method(request, timeout=seconds)

    async def pages(
        self, method: AsyncUnaryCall[Any, Response], request: Any
    ) -> AsyncIterator[Response]:
        """Yields every page of a listing, with one call each; raises the errors of `call`."""
        while True:
            page: Any = await self.call(method, request)
            yield page
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def reconnection(self, on_reconnect: OnReconnect | None) -> Reconnection:
        """Decides about the attempts to open a stream again, within `reconnect_timeout`."""
        return Reconnection(
            self.reconnect_timeout, on_reconnect=on_reconnect, token=self._token or (lambda: None)
        )

    def check_open(self) -> None:
        """Raises `ClientClosedError` if the client is closed."""
        if self.closed:
            raise ClientClosedError
        async_own_loop(self._loop)

    async def close(self) -> None:
        """Ends every call and closes the connection; may be called again."""
        self.closed = True
        channel, self._channel, self._stubs = self._channel, None, None
        if channel is not None:
            await channel.close()

    def __del__(self) -> None:
        if getattr(self, "_channel", None) is not None:
            warnings.warn(
                f"a client of {self.target} was left open: use `async with`, or close it",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


def _server_name(security: Security) -> ChannelOptions:
    name = security.server_name
    return () if name is None else (("grpc.ssl_target_name_override", name),)
