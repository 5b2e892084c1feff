"""Serves calls with `h2corn`: HTTP/2 in a thread that does not hold the GIL."""

import asyncio
import socket
from contextlib import suppress

from h2corn import Config, Server

from leadline.server.transport.application import GrpcApplication
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
from leadline.server.transport.sockets import BACKLOG, listen, most_connections, port_of

# A stream ends if its caller reads nothing for this long; watchers of jobs can
# resume.
_STALL_SECONDS = 600


class H2cornListener:
    """Serves calls on a port."""

    def __init__(self, calls: Calls, options: ListenerOptions) -> None:
        """Makes a listener; `start` binds it."""
        self._calls = calls
        self._options = options
        self._intake = make_intake(options)
        self._application = GrpcApplication(calls, self._intake)
        self._server: Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._replacing: asyncio.Task[None] | None = None
        self._retired: set[asyncio.Task[None]] = set()
        self._listening: list[socket.socket] = []

    async def start(self, host: str, port: int) -> int:
        """Starts to serve; returns the port.

        Raises:
            OSError: the address or the port is not available.
        """
        self._listening = await listen(host, port, shares_port=self._options.shares_port)
        try:
            await self._serve()
        except BaseException:
            await self._close()
            raise
        if self._options.max_connection_age_seconds:
            self._replacing = asyncio.create_task(self._replace_servers())
        return port_of(self._listening[0])

    async def wait_broken(self) -> None:
        """Waits until the listener ends without `stop`.

        Raises:
            Exception: the cause.
        """
        while self._serving is not None:
            watched = {self._serving}
            if self._replacing is not None:
                watched.add(self._replacing)
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for task in done & {self._serving, self._replacing}:
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

    async def _serve(self) -> None:
        server = Server(self._application, self._config(self._listening))
        serving = asyncio.create_task(server.serve(), name="grpc")
        self._server, self._serving = server, serving
        await server.wait_started()

    async def _replace_servers(self) -> None:
        """Replaces the server at the maximum age of connections, as h2corn tracks no ages.

        The next server accepts on the same sockets before the last one sends GOAWAY.
        """
        while True:
            await asyncio.sleep(self._options.max_connection_age_seconds)
            last, serving = self._server, self._serving
            assert last is not None  # noqa: S101 - it was started
            assert serving is not None  # noqa: S101
            self._retired.add(serving)
            await self._serve()
            # Not `shutdown`, which also notifies systemd that the service stops.
            last._request_restart()  # noqa: SLF001 - the version is pinned exactly
            serving.add_done_callback(self._retired.discard)

    def _refuse_connections(self) -> None:
        """Stops accepting connections, and sends GOAWAY on open ones."""
        if self._server is not None:
            self._server.shutdown()
        # Otherwise the kernel would accept connections that nobody serves.
        for bound in self._listening:
            with suppress(OSError):  # already shut down
                bound.shutdown(socket.SHUT_RDWR)

    async def _close(self) -> None:
        """Stops serving after flushing written data."""
        if self._serving is None:
            return
        self._refuse_connections()
        await asyncio.wait({self._serving, *self._retired})  # `wait_broken` raises its error
        for bound in self._listening:
            bound.close()

    def _config(self, listening: list[socket.socket]) -> Config:
        options = self._options
        # For a replaced server; at the stop its calls end after their own grace period.
        age_grace = options.max_connection_age_seconds and options.max_connection_age_grace_seconds
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
        )
