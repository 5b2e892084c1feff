"""Serves calls with `h2corn`: HTTP/2 in a thread that does not hold the GIL."""

import asyncio
import socket
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, cast

import grpc
from h2corn import Config, Server

from leadline.server.tls import Certificates, TlsError
from leadline.server.transport.application import SERVER, AsgiCall, GrpcApplication
from leadline.server.transport.calls import Calls
from leadline.server.transport.listener import (
    CONNECTION_WINDOW_BYTES,
    FRAME_BYTES,
    IDLE_SECONDS,
    MAX_STREAMS,
    METADATA_BYTES,
    STREAM_WINDOW_BYTES,
    ListenerOptions,
)
from leadline.server.transport.messages import make_intake
from leadline.server.transport.sockets import (
    BACKLOG,
    connections,
    listen,
    most_connections,
    port_of,
)

# A stream ends if its caller reads nothing for this long; watchers of jobs can
# resume.
_STALL_SECONDS = 600

# With new certificates, the last server continues its calls for as long as they take.
_NEVER_SECONDS = 1_000_000

# Within this time, clients read the GOAWAY of a replaced server.
_LINGER_SECONDS = 1

# Replaced servers that still have calls; each has a thread. The calls of more are ended.
_MOST_RETIRED = 8

_MOVED = (grpc.StatusCode.UNAVAILABLE, "the server has new certificates: connect again")


@dataclass(frozen=True)
class _Serving:
    """A server, the task that runs it, and its number, which its calls have."""

    server: Server
    task: asyncio.Task[None]
    number: int


class H2cornListener:
    """Serves calls on a port."""

    def __init__(self, calls: Calls, options: ListenerOptions) -> None:
        """Makes a listener; `start` binds it."""
        self._calls = calls
        self._options = options
        self._intake = make_intake(options)
        self._application = GrpcApplication(calls, self._intake)
        self._serving: _Serving | None = None
        self._replacing: asyncio.Task[None] | None = None
        self._retired: list[_Serving] = []
        self._started = 0
        self._one_by_one = asyncio.Lock()
        self._held: dict[Any, socket.socket] = {}
        self._listening: list[socket.socket] = []

    async def start(self, host: str, port: int) -> int:
        """Starts to serve; returns the port.

        Raises:
            OSError: the address or the port is not available.
            TlsError: the certificates cannot be used.
        """
        self._listening = await listen(host, port, shares_port=self._options.shares_port)
        tls = self._options.tls
        try:
            self._serving = await self._serve(None if tls is None else tls.current)
        except BaseException:
            for bound in self._listening:
                bound.close()
            raise
        if tls is not None:
            tls.apply_with(self._replace_server)
        if self._options.max_connection_age_seconds:
            self._replacing = asyncio.create_task(self._replace_servers())
        return port_of(self._listening[0])

    async def wait_broken(self) -> None:
        """Waits until the listener ends without `stop`.

        Raises:
            Exception: the cause.
        """
        while self._serving is not None:
            watched = {self._serving.task}
            if self._replacing is not None:
                watched.add(self._replacing)
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for task in done & {self._serving.task, self._replacing}:
                task.result()
                raise OSError("the HTTP/2 listener has ended")

    async def stop(self) -> None:
        """Stops accepting connections and calls, and ends calls that outlast the grace period."""
        if self._replacing is not None:
            self._replacing.cancel()
        self._refuse_connections()
        await self._calls.stop(self._options.grace_seconds)
        await self._close()
        self._intake.close()

    async def _serve(self, certificates: Certificates | None) -> _Serving:
        """Starts another server on the same sockets."""
        self._started += 1
        number = self._started

        def application(scope: Any, receive: Any, send: Any) -> Coroutine[Any, Any, None]:
            scope[SERVER] = number
            return self._application(scope, receive, send)

        with ExitStack() as stack:
            tls = {} if certificates is None else _tls_config(certificates, stack)
            server = Server(application, self._config(self._listening, tls))
            task = asyncio.create_task(server.serve(), name="grpc")
            try:
                await server.wait_started()
            except ValueError as error:  # about the certificates, as the rest is always the same
                await asyncio.gather(task, return_exceptions=True)
                raise TlsError(f"h2corn refuses the certificates: {error}") from error
            except BaseException:
                server.shutdown()
                await asyncio.gather(task, return_exceptions=True)
                raise
        return _Serving(server, task, number)

    async def _replace_servers(self) -> None:
        """Replaces the server at the maximum age of connections, as h2corn tracks no ages."""
        while True:
            await asyncio.sleep(self._options.max_connection_age_seconds)
            tls = self._options.tls
            await self._replace_server(None if tls is None else tls.current)

    async def _replace_server(self, certificates: Certificates | None) -> None:
        """Replaces the server, whose connections get GOAWAY and whose calls continue.

        The next server accepts on the same sockets before that. The last one ends with its
        last call.

        Raises:
            TlsError: the certificates cannot be used, and the server is not replaced.
        """
        async with self._one_by_one:
            last = self._serving
            assert last is not None  # noqa: S101 - it was started
            self._serving = await self._serve(certificates)
        # h2corn closes idle connections right after GOAWAY. A call that is on its way would
        # then reset the connection, and the client could not read GOAWAY.
        held = await self._hold_connections()
        # Not `shutdown`, which also notifies systemd that the service stops.
        last.server._request_restart()  # noqa: SLF001 - the version is pinned exactly
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._release, held)
        self._retired = [old for old in (*self._retired, last) if not old.task.done()]
        moved = {old.number for old in self._retired[:-_MOST_RETIRED]}
        for call in self._calls:
            if cast(AsgiCall, call).server in moved:
                call.cancel(_MOVED)

    async def _hold_connections(self) -> list[Any]:
        """Keeps the sockets of all connections open; returns those that were not held before."""
        port = port_of(self._listening[0])
        held = await asyncio.to_thread(connections, port, self._held.keys())
        self._held |= held
        return list(held)

    def _release(self, peers: list[Any]) -> None:
        for peer in peers:
            if peer in self._held:
                self._held.pop(peer).close()

    def _refuse_connections(self) -> None:
        """Stops accepting connections, and sends GOAWAY on open ones."""
        if self._serving is not None:
            self._serving.server.shutdown()
        # Otherwise the kernel would accept connections that nobody serves.
        for bound in self._listening:
            with suppress(OSError):  # already shut down
                bound.shutdown(socket.SHUT_RDWR)

    async def _close(self) -> None:
        """Stops serving after flushing written data."""
        if self._serving is None:
            return
        self._refuse_connections()
        tasks = {self._serving.task, *(old.task for old in self._retired)}
        _, pending = await asyncio.wait(tasks, timeout=self._options.flush_seconds)
        if pending:  # of callers who do not read
            await self._hold_connections()
            for held in self._held.values():
                with suppress(OSError):  # closed meanwhile
                    held.shutdown(socket.SHUT_RDWR)
            await asyncio.wait(pending)  # `wait_broken` raises its error
        self._release(list(self._held))
        for bound in self._listening:
            bound.close()

    def _config(self, listening: list[socket.socket], tls: dict[str, Any]) -> Config:
        options = self._options
        # For a replaced server; at the stop its calls end after their own grace period.
        age_grace = options.max_connection_age_seconds and options.max_connection_age_grace_seconds
        if tls and not age_grace:
            age_grace = _NEVER_SECONDS
        return Config(
            bind=tuple(f"fd://{bound.fileno()}" for bound in listening),
            grpc=True,
            http1=False,
            lifespan="off",
            access_log=False,
            date_header=False,
            log_format="json" if options.json_logs else "text",
            runtime_threads=1,
            backlog=BACKLOG,
            limit_connections=most_connections(shares_port=options.shares_port),
            max_concurrent_streams=MAX_STREAMS,
            h2_max_header_list_size=METADATA_BYTES,
            h2_max_header_block_size=METADATA_BYTES,
            limit_request_fields=0,  # the limit is in bytes, above
            h2_max_inbound_frame_size=FRAME_BYTES,
            h2_initial_stream_window_size=STREAM_WINDOW_BYTES,
            h2_initial_connection_window_size=CONNECTION_WINDOW_BYTES,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=max(options.grace_seconds + options.flush_seconds, age_grace),
            h2_timeout_response_stall=_STALL_SECONDS,
            **tls,
        )


def _tls_config(certificates: Certificates, stack: ExitStack) -> dict[str, Any]:
    """The options of TLS, whose files exist until the stack ends."""
    chain, key, *client_ca = stack.enter_context(certificates.as_files())
    clients = {"ca_certs": client_ca[0]} if client_ca else {}
    return {"certfile": chain, "keyfile": key, "cert_reqs": certificates.client_auth, **clients}
