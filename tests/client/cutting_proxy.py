"""A proxy that cuts connections, to be put before a real server."""

import socket
import threading
from contextlib import suppress


class CuttingProxy:
    """Passes TCP on, and cuts each of its first connections after so many bytes of the server's."""

    def __init__(self, target: str, limits: list[int]) -> None:
        self._upstream = target.rsplit(":", 1)
        self._limits = iter(limits)
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # Closing alone does not wake a thread that accepts.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((self._upstream[0], int(self._upstream[1])))
                limit = next(self._limits, None)
                for arguments in ((client, server, None), (server, client, limit)):
                    threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(
        self, source: socket.socket, destination: socket.socket, limit: int | None
    ) -> None:
        with suppress(OSError):
            while limit is None or limit > 0:
                data = source.recv(65_536 if limit is None else min(limit, 65_536))
                if not data:
                    break
                destination.sendall(data)
                if limit is not None:
                    limit -= len(data)
            if limit == 0:
                self.cuts += 1
        for end in (source, destination):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
