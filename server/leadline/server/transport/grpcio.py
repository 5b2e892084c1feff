"""Serves calls with gRPC's own server, `grpc.aio`."""

import asyncio
import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import grpc
from grpc import aio
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from leadline.server.errors import InvalidArgumentError
from leadline.server.tls import Certificates, TlsCertificates, TlsError
from leadline.server.transport.arrivals import Arrivals
from leadline.server.transport.budget import Charge, Charges
from leadline.server.transport.call import CALLER_GONE, DEADLINE_EXCEEDED, Call
from leadline.server.transport.calls import Calls, Method
from leadline.server.transport.headers import Metadata, size_of
from leadline.server.transport.listener import (
    FRAME_BYTES,
    IDLE_SECONDS,
    MAX_STREAMS,
    METADATA_BYTES,
    ListenerOptions,
)
from leadline.server.transport.messages import MessageIntake, make_intake
from leadline.server.transport.response import MetadataPairs, Response
from leadline.server.transport.sockets import listen, most_connections, port_of

# Detects a dead connection within a minute, idle or with unacknowledged data.
_PING_AFTER_SECONDS = 40
_PING_ANSWER_SECONDS = 20
_SETTINGS_SECONDS = 20

# Core cancels a call's task within this time after the end of its messages.
_CANCELLATION_SECONDS = 0.02

_LARGE_METADATA = f"the metadata of a call has more than {METADATA_BYTES} bytes"

# With so much metadata, a caller does not get a status before its connection ends.
_BOMB_BYTES = 4 * METADATA_BYTES

_LOOKAHEAD_BYTES = 1 << 16

# How the data of each encoding begins. No protobuf message begins with the first bytes of gzip,
# and one that begins with those of deflate is no complete data with a right checksum.
_BEGINNINGS = {
    b"\x1f\x8b": b"gzip",
    b"\x78\x01": b"deflate",
    b"\x78\x5e": b"deflate",
    b"\x78\x9c": b"deflate",
    b"\x78\xda": b"deflate",
}

# Calls of a method that are accepted in one pass of the event loop. Core queues further calls.
_ACCEPTED_AT_ONCE = 16

# Above the first number of queued calls of a method, core cancels some of its new calls, whoever
# makes them; above the second, all. Four connections may use all their streams at once.
_MAX_QUEUED = 4 * MAX_STREAMS, 6 * MAX_STREAMS

# The resolution of the timers by which core cancels a call at its deadline.
_TIMER_SECONDS = 0.01


def _is_of_interest(record: logging.LogRecord) -> bool:
    """Whether a record of core is not only about a caller who left before the response."""
    return not (record.exc_info and isinstance(record.exc_info[1], cygrpc.ExecuteBatchError))


logging.getLogger("grpc._cython.cygrpc").addFilter(_is_of_interest)


class GrpcioListener:
    """Serves calls on a port."""

    def __init__(self, calls: Calls, options: ListenerOptions) -> None:
        """Makes a listener; `start` binds it.

        Raises:
            TlsError: the options ask for what grpc does not have.
        """
        self._calls = calls
        self._options = options
        self._tls = options.tls
        self._has_certificates = (
            options.tls is not None and options.tls.current.client_auth != "none"
        )
        if self._tls is not None and self._tls.current.client_auth == "optional":
            raise TlsError(
                "--tls-client-auth optional cannot be had with --transport grpcio, which either "
                "requires certificates or never asks for them: use --transport h2corn"
            )
        self._intake = make_intake(options)
        self._arrivals = Arrivals(calls, self._intake)
        self._watching: asyncio.Task[None] | None = None
        self._server: _CoreServer | None = None
        self._ended: asyncio.Task[Any] | None = None

    async def start(self, host: str, port: int) -> int:
        """Starts to serve; returns the port.

        Raises:
            OSError: the address or the port is not available.
        """
        # Checks the address first, because core does not report why it cannot bind.
        bound = await listen(host, port, shares_port=self._options.shares_port)
        addresses = [sock.getsockname() for sock in bound]
        chosen = port_of(bound[0])
        for sock in bound:
            sock.close()
        self._server = server = self._make_server()
        try:
            for name, *_ in addresses:
                self._add_port(server, _target(name, chosen).encode())
        except RuntimeError as error:
            raise OSError(errno.EADDRINUSE, str(error)) from error
        await server.start()
        # A task, because cancelling a waiter would cancel core's own future of its end.
        self._ended = asyncio.create_task(server.wait_for_termination(None))
        self._watching = asyncio.create_task(self._arrivals.watch(chosen))
        return chosen

    async def wait_broken(self) -> None:
        """Waits until the listener ends without `stop`.

        Raises:
            Exception: the cause.
        """
        if self._ended is not None and self._watching is not None:
            tasks = {self._ended, self._watching}
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            raise OSError("the gRPC listener has ended")

    async def stop(self) -> None:
        """Stops accepting connections and calls, and ends calls that outlast the grace period."""
        if self._server is None:
            return
        grace = self._options.grace_seconds
        # Sends GOAWAY now, and ends when all calls have ended.
        stopping = asyncio.create_task(self._server.shutdown(grace + self._options.flush_seconds))
        await self._calls.stop(grace)
        await stopping
        if self._watching is not None:
            self._watching.cancel()
        self._intake.close()

    def _add_port(self, server: "_CoreServer", target: bytes) -> None:
        if self._tls is None:
            server.add_insecure_port(target)
            return
        credentials = grpc.dynamic_ssl_server_credentials(
            _configuration(self._tls.current),
            cast(Any, _Fetcher(self._tls)),  # its type does not know of None
            self._tls.current.client_auth == "required",
        )
        server.add_secure_port(target, credentials)

    def _make_server(self) -> "_CoreServer":
        handlers = {
            path.encode(): self._handler(path, method)
            for path, method in self._calls.methods.items()
        }
        return _CoreServer(handlers, self._handler("", None), _core_options(self._options))

    def _handler(self, path: str, method: Method | None) -> Any:
        """Returns a method's handler for grpc, which reads the requests from the context."""

        async def answer(_requests: Any, context: aio.ServicerContext[Any, Any]) -> bytes | None:
            try:
                return await self._answer(path, context)
            except aio.AbortError as error:
                # grpc raises it once more. Its traceback would keep the call and its metadata until
                # the next collection of garbage.
                error.__traceback__ = None
                return None

        if method is not None and method.is_unary:
            # Sends the response and the status together.
            return grpc.stream_unary_rpc_method_handler(answer)
        return grpc.stream_stream_rpc_method_handler(answer)

    async def _answer(self, path: str, context: aio.ServicerContext[Any, Any]) -> bytes | None:
        peer = str(context.peer())
        metadata, size = self._metadata_of(context, peer)
        if metadata is None:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, _LARGE_METADATA)
        response = _GrpcioResponse(context)
        messages = _Messages(context, peer, self._intake, self._arrivals)
        request = (path, context, peer, metadata, self._has_certificates)
        call = _GrpcioCall(request, messages, response)
        await self._calls.answer(call, size)
        return response.last

    def _metadata_of(
        self, context: aio.ServicerContext[Any, Any], peer: str
    ) -> tuple[Metadata | None, int]:
        """The metadata of a call, and its size; None if the call is refused because of it."""
        if not self._arrivals.begin(peer):
            return None, 0
        metadata = cast(Metadata, context.invocation_metadata())
        size = size_of(metadata)
        if size <= METADATA_BYTES:
            return metadata, size
        # Core itself enforces the limit once the client has acknowledged it.
        self._arrivals.end(peer, is_urgent=size > _BOMB_BYTES)
        return None, size


def _core_options(options: ListenerOptions) -> list[tuple[str, int]]:
    """The options of grpc's core, which `grpc/impl/channel_arg_names.h` documents."""
    age = []
    if options.max_connection_age_seconds:
        age = [
            ("grpc.max_connection_age_ms", round(options.max_connection_age_seconds * 1_000)),
            (
                "grpc.max_connection_age_grace_ms",
                round(options.max_connection_age_grace_seconds * 1_000),
            ),
        ]
    return [
        *age,
        ("grpc.so_reuseport", int(options.shares_port)),
        # The bytes that core accepts before a message is read; more during a read.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _LOOKAHEAD_BYTES),
        # Clients acknowledge the server's limits at once; until then the defaults hold.
        ("grpc.http2.settings_timeout", _SETTINGS_SECONDS * 1_000),
        ("grpc.max_receive_message_length", options.max_message_bytes),
        # Core would decompress any number of messages at once, outside the budget.
        ("grpc.per_message_decompression", 0),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.server.max_pending_requests", _MAX_QUEUED[0]),
        ("grpc.server.max_pending_requests_hard_limit", _MAX_QUEUED[1]),
        ("grpc.http2.max_frame_size", FRAME_BYTES),
        ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1_000),
        ("grpc.keepalive_time_ms", _PING_AFTER_SECONDS * 1_000),
        ("grpc.keepalive_timeout_ms", _PING_ANSWER_SECONDS * 1_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients may ping as often as they like.
        ("grpc.http2.max_ping_strikes", 0),
        (
            "grpc.max_allowed_incoming_connections",
            most_connections(shares_port=options.shares_port) or -1,
        ),
    ]


def _target(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    pair = (certificates.key, certificates.chain)
    return grpc.ssl_server_certificate_configuration([pair], certificates.client_ca)


class _Fetcher:
    """Gives core new certificates; it asks at each handshake, under a lock of the port."""

    def __init__(self, tls: TlsCertificates) -> None:
        self._tls = tls
        self._last = tls.current

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns the certificates if they have changed."""
        if self._tls.current is self._last:
            return None
        self._last = self._tls.current
        return _configuration(self._last)


class _CoreServer(cygrpc.AioServer):  # type: ignore[misc]
    """grpc's server with a separate accept loop for each method.

    The base class decodes the paths of unknown methods as UTF-8, and a path that is not
    UTF-8 would end the server.
    """

    def __init__(
        self,
        handlers: dict[bytes, Any],
        otherwise: Any,
        options: list[tuple[str, int]],
    ) -> None:
        """Makes a server; `otherwise` answers paths without a handler."""
        loop = asyncio.get_running_loop()
        super().__init__(loop, None, (), (), tuple(options), None)
        self._handlers = handlers
        self._otherwise = otherwise
        # The event loop holds only weak references to its tasks.
        self._tasks: set[asyncio.Task[None]] = set()
        self.add_registered_method_handlers({path.decode(): None for path in handlers})

    def _make_request_call_future(self, path: bytes | None) -> "asyncio.Future[list[None]]":
        return asyncio.gather(*(self._accept(path) for _ in range(_ACCEPTED_AT_ONCE)))

    async def _accept(self, path: bytes | None) -> None:
        """Accepts calls of a path until the stop; None stands for all paths without a handler."""
        handler = self._otherwise if path is None else self._handlers[path]
        run = cygrpc._handle_stream_unary_rpc  # noqa: SLF001 - see the class
        if handler.response_streaming:
            run = cygrpc._handle_stream_stream_rpc  # noqa: SLF001
        name = "" if path is None else path.decode()
        loop = asyncio.get_running_loop()
        while True:
            if path is None:
                state = await self._request_call()
            else:
                state = await self._request_registered_call(path)
            task = loop.create_task(
                cygrpc._schedule_rpc_coro(run(handler, state, loop), state, loop, name)  # noqa: SLF001
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


class _GrpcioCall(Call):
    """A call of which core enforces the deadline.

    Its request is its path, grpc's context, the peer, the metadata, and whether clients have
    certificates.
    """

    __slots__ = ()

    @property
    def path(self) -> str:
        path: str = self._request[0]
        return path

    @property
    def peer(self) -> str:
        peer: str = self._request[2]
        return peer

    @property
    def connection(self) -> str:
        return self.peer

    @property
    def authorization(self) -> list[bytes]:
        return [
            value.encode("latin-1", "replace") if isinstance(value, str) else value
            for name, value in self._request[3]
            if name == "authorization"
        ]

    @property
    def certificate(self) -> str | None:
        if not self._request[4]:
            return None
        (certificate,) = self._request[1].auth_context().get("x509_pem_cert", (None,))
        return None if certificate is None else certificate.decode()

    def header_bytes(self) -> int:
        return size_of(self._request[3])

    def metadata(self) -> Metadata:
        metadata: Metadata = self._request[3]
        return metadata

    @property
    def end_of_cancelled(self) -> tuple[grpc.StatusCode, str]:
        if self._end is CALLER_GONE:
            remaining = self.time_remaining()
            if remaining is not None and remaining < _TIMER_SECONDS:
                return DEADLINE_EXCEEDED
        return self._end

    def time_remaining(self) -> float | None:
        return cast("float | None", self._request[1].time_remaining())


class _Messages:
    """The messages of a request; core limits them.

    Core tells neither a message's compressed flag nor its encoding, so compressed data is
    recognized by its first bytes.
    """

    __slots__ = (
        "_arrivals",
        "_charges",
        "_connection",
        "_context",
        "_count",
        "_intake",
        "_is_reading",
    )

    def __init__(
        self,
        context: aio.ServicerContext[Any, Any],
        connection: str,
        intake: MessageIntake,
        arrivals: Arrivals,
    ) -> None:
        self._context = context
        self._connection = connection
        self._intake = intake
        self._arrivals = arrivals
        self._charges: Charges | None = None  # from the first large message on
        self._count = 0
        self._is_reading = False

    @property
    def pending_read(self) -> int:
        return self._count + 1 if self._is_reading else 0

    async def read(self) -> bytes | memoryview | None:
        if self._charges is not None:
            self._charges.begin()
        self._is_reading = True
        try:
            message: Any = await self._context.read()
        finally:
            self._is_reading = False
        if message is aio.EOF:
            if not self._count:
                # If a caller leaves before its first message, core reports the end of messages.
                await asyncio.sleep(_CANCELLATION_SECONDS)
            return None
        self._count += 1
        self._arrivals.give(self._connection, len(message))
        if len(message) > FRAME_BYTES:  # as with h2corn, which charges more than one frame
            self._charge().resize(len(message))
        encoding = _BEGINNINGS.get(message[:2])
        if encoding is not None:
            try:
                return await self._intake.decompress(memoryview(message), encoding, self._charge())
            except InvalidArgumentError:
                if encoding == b"gzip":
                    raise
        return cast(bytes, message)

    async def read_single(self) -> bytes | memoryview | None:
        message = await self.read()
        return message if message is not None and await self.read() is None else None

    def close(self) -> None:
        if self._charges is not None:
            self._charges.close()

    def _charge(self) -> Charge:
        """The charge of the message that is being read."""
        if self._charges is None:
            self._charges = self._intake.charges(self._connection)
        return self._charges.last


class _GrpcioResponse(Response):
    """Sends through grpc's context.

    Attributes:
        last: the response of a unary method, which its handler returns.
    """

    __slots__ = ("last",)

    def __init__(self, context: aio.ServicerContext[Any, Any]) -> None:
        super().__init__(context)
        self.last: bytes | None = None

    async def start(self, metadata: MetadataPairs = ()) -> None:
        if not self._has_started:
            self._has_started = True
            with _caller_gone():
                await self._sink.send_initial_metadata(tuple(metadata))

    async def send(self, message: bytes) -> None:
        self._has_started = True
        with _caller_gone():
            await self._sink.write(message)

    async def end(self, last: bytes | None = None) -> None:
        trailing = tuple(self.trailing)
        if self.code is not grpc.StatusCode.OK:
            with _caller_gone():
                await self._sink.abort(self.code, self.message, trailing)
        self.last = last
        if trailing:
            self._sink.set_trailing_metadata(trailing)


@contextmanager
def _caller_gone() -> Iterator[None]:
    """Treats core's refusal to send on an ended call as a caller that has left."""
    try:
        yield
    except cygrpc.ExecuteBatchError as error:
        raise asyncio.CancelledError("the caller is gone") from error
