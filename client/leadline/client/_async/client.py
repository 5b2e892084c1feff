"""The client: a method for each call of the service, and handles for jobs and sweeps."""

from typing import Any, Self

from grpc_health.v1 import health_pb2, health_pb2_grpc

from leadline.client._async.connection import AsyncConnection
from leadline.client._async.inference import AsyncInferenceCalls
from leadline.client._async.inspection import AsyncInspectionCalls
from leadline.client._async.sweeps import AsyncSweepCalls
from leadline.client._async.training import AsyncTrainingCalls
from leadline.client._channel import ChannelOptions
from leadline.client._config import client_arguments
from leadline.client._errors import NotFoundError
from leadline.client._health import HealthStatus
from leadline.client._security import Credentials, PathLike, Security, Token


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
        tls: bool | None = None,
        ca: PathLike | None = None,
        cert: PathLike | None = None,
        key: PathLike | None = None,
        server_name: str | None = None,
        token: Token | None = None,
        token_file: PathLike | None = None,
        insecure_token: bool = False,
        credentials: Credentials | None = None,
        options: ChannelOptions = (),
    ) -> None:
        """Makes a client, which connects with its first call.

        Args:
            target: the server's address: "host" (with port 50051),
                "host:port", "https://host:port" for TLS, "http://host:port"
                for none, "dns:///host:port" or "unix:/path".
            timeout: seconds for each unary call including its retries, and
                for a submitted job to be accepted.
            reconnect_timeout: seconds that a stream waits for an unavailable
                server; None for no limit.
            tls: whether the connection is encrypted; by default it is if the
                target begins with https://, or `ca` or `cert` is given.
            ca: a PEM file of the authorities that may have signed the server's
                certificate; by default the public ones that gRPC knows.
            cert: a PEM file of the client's certificate, for servers that ask
                for one; needs `key`.
            key: a PEM file of the certificate's private key.
            server_name: the name that the server's certificate has, if it
                differs from the target's host, as behind a forwarded port.
            token: a bearer token, or a function that returns one. The function
                is called for each call, so it must be fast.
            token_file: a file with a bearer token, read again for each call, so
                that a new token is used at once.
            insecure_token: allows a token on an unencrypted connection beyond
                this machine.
            credentials: gRPC's channel credentials instead of `tls`, `ca`,
                `cert` and `key`; or its call credentials, beside them.
            options: options of gRPC's channel, which override those of the SDK.

        Raises:
            InvalidArgumentError: arguments contradict each other, or a file has
                no certificate or key.
            OSError: a file cannot be read.
        """
        self._connection = AsyncConnection(
            target,
            timeout=timeout,
            reconnect_timeout=reconnect_timeout,
            security=Security(
                tls=tls,
                ca=ca,
                cert=cert,
                key=key,
                server_name=server_name,
                token=token,
                token_file=token_file,
                insecure_token=insecure_token,
                credentials=credentials,
            ),
            options=options,
        )

    @classmethod
    def from_config(cls, profile: str | None = None, **options: Any) -> Self:
        """Makes a client with the settings of the command line.

        They come from the variables LEADLINE_TARGET, LEADLINE_TOKEN_FILE and so on, and then from a
        profile of `leadline config`.

        Args:
            profile: the name of a profile; None for that of LEADLINE_PROFILE, or the one in use.
            options: arguments of the class, which take precedence.

        Raises:
            UsageError: the profile, its file or a variable is wrong.
        """
        return cls(**client_arguments(options, profile))

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
