"""A child process and its pipes, on any event loop.

It is started by Python's own `subprocess`, which does not copy this process
first. Event loops that start processes by themselves may do so with `fork`,
before which gRPC stops its threads and after which it starts them anew.
"""

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, Self

_Output = tuple[asyncio.StreamReader, asyncio.ReadTransport]


class ChildProcess:
    """A process, from its start to its end.

    Attributes:
        pid: its id.
        stdin: what it reads.
        stdout: what it writes.
        stderr: what it logs.
    """

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        *,
        stdin: asyncio.StreamWriter,
        stdout: _Output,
        stderr: _Output,
    ) -> None:
        self.pid = process.pid
        self.stdin = stdin
        self.stdout, self._stdout_transport = stdout
        self.stderr, self._stderr_transport = stderr
        self._process = process
        self._ended = asyncio.Event()
        # Readable from when the process has ended.
        self._handle = os.pidfd_open(process.pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._handle, self._reap)

    @classmethod
    async def spawn(
        cls, command: Sequence[str], *, environment: Mapping[str, str], line_limit: int
    ) -> Self:
        """Starts a process in a session of its own.

        In this thread: the kernel ties the end of a child that asks for it to
        the thread that started it.

        Args:
            command: the program and its arguments.
            environment: all of its variables.
            line_limit: the longest line that can be read from it, in bytes.

        Raises:
            OSError: it cannot be started.
        """
        process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own; takes a millisecond
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            # A Ctrl-C at the terminal is for the server to act on.
            start_new_session=True,
            bufsize=0,
        )
        return cls(
            process,
            stdin=await _writer(process.stdin),
            stdout=await _reader(process.stdout, line_limit),
            stderr=await _reader(process.stderr, line_limit),
        )

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    def kill(self) -> None:
        """Ends it at once; one that has ended is no error."""
        self._process.kill()

    async def wait(self) -> int:
        """Waits for its end; returns its exit status, negative for a signal."""
        await self._ended.wait()
        return int(self._process.returncode)

    def close(self) -> None:
        """Closes its pipes: what it wrote and was not read is lost."""
        self.stdin.close()
        self._stdout_transport.close()
        self._stderr_transport.close()

    def _reap(self) -> None:
        self._process.wait()
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        self._ended.set()


async def _reader(pipe: IO[bytes] | None, limit: int) -> _Output:
    reader = asyncio.StreamReader(limit)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    return reader, transport


async def _writer(pipe: IO[bytes] | None) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, pipe)
    return asyncio.StreamWriter(transport, protocol, None, loop)
