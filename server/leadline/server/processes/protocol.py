"""The protocol between the main process and a serving process.

The serving process starts with one socket as its standard input, over which it first receives
a greeting: the settings, and the memory that holds the revision of the store. From then on
the socket is a `Link`.
"""

import json
import mmap
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from leadline.server.settings import Settings
from leadline.server.transport.call import Call

STATUS_PATH = "/status"
"""The path of the method by which either process reports its health, and its metrics."""

_REVISION_BYTES = 8
_GREETING_BYTES = 1 << 18


class SharedRevision:
    """The revision of the store in memory that all processes map; the main process writes it.

    Attributes:
        file: the descriptor of the memory.
        view: the one number.
    """

    def __init__(self, file: int) -> None:
        """Maps the memory of a descriptor."""
        self.file = file
        self.view = memoryview(mmap.mmap(file, _REVISION_BYTES)).cast("Q")

    @classmethod
    def make(cls) -> "SharedRevision":
        """New memory, whose revision is 0."""
        file = os.memfd_create("leadline-revision")
        os.truncate(file, _REVISION_BYTES)
        return cls(file)


@dataclass(frozen=True)
class Greeting:
    """What a serving process must know to start.

    Attributes:
        number: its number, from 1; the main process has 0.
        settings: the server's options; the port is never 0.
        requires_identities: whether callers need an identity, also if a file is lost.
    """

    number: int
    settings: Settings
    requires_identities: bool

    def send(self, shared: socket.socket, revision: SharedRevision) -> None:
        """Sends it to the process at the other end, with the memory of the revision."""
        values = {
            "number": self.number,
            "settings": self.settings.model_dump(mode="json"),
            "requires_identities": self.requires_identities,
        }
        socket.send_fds(shared, [json.dumps(values).encode()], [revision.file])

    @classmethod
    def receive(cls, shared: socket.socket) -> "tuple[Greeting, SharedRevision] | None":
        """Receives the greeting of the main process; None if that process has ended."""
        packet, files, *_ = socket.recv_fds(shared, _GREETING_BYTES, 1)
        if not packet:
            return None
        values = json.loads(packet)
        settings = Settings(**values["settings"])
        greeting = cls(values["number"], settings, values["requires_identities"])
        return greeting, SharedRevision(files[0])


class StatusMethod:
    """Answers the other process with the result of `read`, as JSON."""

    is_unary = True

    def __init__(self, read: Callable[[], Awaitable[Any]]) -> None:
        self._read = read

    async def answer(self, call: Call) -> bytes:
        """Answers a call."""
        del call
        return json.dumps(await self._read()).encode()
