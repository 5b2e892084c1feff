"""The client: a method for each call of the service, and handles for jobs and sweeps."""

from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from leadline.client._async.connection import AsyncConnection
from leadline.client._async.inference import AsyncInferenceCalls
from leadline.client._async.inspection import AsyncInspectionCalls
from leadline.client._async.sweeps import AsyncSweepCalls
from leadline.client._async.training import AsyncTrainingCalls
from leadline.client._channel import ChannelOptions
from leadline.client._errors import NotFoundError
from leadline.client._health import HealthStatus


class AsyncClient(AsyncTrainingCalls, AsyncSweepCalls, AsyncInferenceCalls, AsyncInspectionCalls):
    """A client of one Leadline server.

    Example::

        async with AsyncClient("127.0.0.1:50051") as client:
            job = await client.train(dataset="synthetic", blocks=2, epochs=5)
            async for epoch in job.epochs():
                print(epoch.epoch, epoch.test_accuracy)
            await job.result()
            print((await client.predict("cat.png", model=job.model)).class_names)

    Every method raises an `RpcError` if the server answers with an error:
    `NotFoundError`, `InvalidArgumentError` and so on; the module of
    `LeadlineError` shows the tree. A closed client raises `ClientClosedError`.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        timeout: float = 30.0,
        reconnect_timeout: float | None = 300.0,
        credentials: grpc.ChannelCredentials | None = None,
        options: ChannelOptions = (),
    ) -> None:
        """Makes a client, which connects with its first call.

        Args:
            target: the server's address: "host" (with port 50051),
                "host:port", "http://host:port", "dns:///host:port" or
                "unix:/path".
            timeout: seconds for each unary call including its retries, and
                for a submitted job to be accepted.
            reconnect_timeout: seconds that a stream waits for an unavailable
                server; None for no limit.
            credentials: for TLS; None for an unencrypted connection.
            options: options of gRPC's channel, which override those of the SDK.
        """
        self._connection = AsyncConnection(
            target,
            timeout=timeout,
            reconnect_timeout=reconnect_timeout,
            credentials=credentials,
            options=options,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connection.target!r})"

    async def __aenter__(self) -> Self:
        """Returns the client."""
        self._connection.check_open()
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Closes the client."""
        await self.close()

    async def close(self) -> None:
        """Ends every call and the connection; jobs continue. May be called again."""
        await self._connection.close()

    async def health(self, service: str = "") -> HealthStatus:
        """Whether the server, or one of its services, accepts calls; does not retry.

        Raises:
            NotFoundError: the server has no service of this name.
            UnavailableError: the server cannot be reached.
        """
        stub = health_pb2_grpc.HealthStub(self._connection.channel)
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            response = await self._connection.call_once(
                stub.Check, request, self._connection.timeout
            )
        except NotFoundError as error:
            # Adds a message, because the server's error has none.
            raise NotFoundError(f"the server has no service {service!r}", error.details) from None
        return HealthStatus(response.status)
