"""A TCP proxy in a thread that cuts connections."""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

_CHUNK = 1 << 16

# Closes with RST instead of FIN: SO_LINGER with zero seconds.
_RESET = struct.pack("ii", 1, 0)


class _Connection:
    """A client's connection, joined with one to the server."""

    def __init__(
        self, client: asyncio.StreamWriter, server: asyncio.StreamWriter, left: int | None
    ) -> None:
        self.client = client
        self.server = server
        # The remaining bytes from the server before the cut; None: no cut.
        self.left = left
        self.abruptly = False

    def cut(self) -> None:
        """Closes both sides, with RST if abrupt, otherwise with FIN."""
        for writer in (self.client, self.server):
            if self.abruptly:
                sock = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
            else:
                writer.close()


class Proxy:
    """Forwards bytes, and cuts connections at given points or on demand.

    Attributes:
        target: the address for clients.
        cuts: the number of cut connections.
    """

    def __init__(self, target: str, limits: Iterable[int] = ()) -> None:
        """Sets the number of bytes from the server after which each of the first connections is
        cut."""
        self._limits = iter(limits)
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.target = ""
        self.cuts = 0

    def __enter__(self) -> Self:
        self._thread.start()
        port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(30)
        self.target = f"127.0.0.1:{port}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def cut_one(self, chance: random.Random) -> None:
        """Cuts one of the open connections, if there are any.

        Half of the cuts are RST, half FIN. Half come at once, half within the next bytes from the
        server, in the middle of a message.
        """
        abruptly, left = chance.random() < 0.5, None
        if chance.random() < 0.5:
            left = chance.randrange(1, 200)
        which = chance.random()
        self._loop.call_soon_threadsafe(self._cut, which, abruptly, left)

    def _cut(self, which: float, abruptly: bool, left: int | None) -> None:
        uncut = [connection for connection in self._connections if connection.left is None]
        if not uncut:
            return
        connection = uncut[int(which * len(uncut))]
        connection.abruptly = abruptly
        connection.left = left or 0
        if not left:
            self._end(connection)

    def _end(self, connection: _Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            self.cuts += 1
            connection.cut()

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError):  # either side may close at any moment
            upstream, server = await asyncio.open_connection(self._host, self._port)
            connection = _Connection(writer, server, next(self._limits, None))
            self._connections.add(connection)
            try:
                await asyncio.gather(self._up(reader, connection), self._down(upstream, connection))
            finally:
                self._connections.discard(connection)
                connection.cut()

    async def _up(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        while data := await reader.read(_CHUNK):
            connection.server.write(data)
            await connection.server.drain()
        connection.server.write_eof()

    async def _down(self, upstream: asyncio.StreamReader, connection: _Connection) -> None:
        while data := await upstream.read(_CHUNK):
            if connection.left is not None and len(data) >= connection.left:
                connection.client.write(data[: connection.left])
                await connection.client.drain()
                self._end(connection)
                return
            if connection.left is not None:
                connection.left -= len(data)
            connection.client.write(data)
            await connection.client.drain()
        connection.client.write_eof()

    async def _close(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cut()
        await asyncio.gather(*self._tasks)
