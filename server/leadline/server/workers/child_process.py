"""A child process and its pipes, on any event loop.

Python's `subprocess` starts it with `vfork`. Some event loops use `fork`, after which
gRPC's fork handlers would stop and restart its threads.
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
        pid: the process id.
        stdin: its standard input.
        stdout: its standard output.
        stderr: its standard error.
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
        # The descriptor becomes readable when the process ends.
        self._handle = os.pidfd_open(process.pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._handle, self._reap)

    @classmethod
    async def spawn(
        cls, command: Sequence[str], *, environment: Mapping[str, str], line_limit: int
    ) -> Self:
        """Starts a process in a new session.

        Call it in the main thread: PR_SET_PDEATHSIG kills the child when the
        thread that started it ends.

        Args:
            command: the program and its arguments.
            environment: all environment variables.
            line_limit: the longest line that can be read, in bytes.

        Raises:
            OSError: the process cannot be started.
        """
        process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own program; takes a millisecond
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            # Ctrl-C at the terminal must reach only the server.
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
        """The exit status, negative for a signal; None while the process runs."""
        return self._process.returncode

    def kill(self) -> None:
        """Kills the process; does nothing if it has ended."""
        self._process.kill()

    async def wait(self) -> int:
        """Waits for the end; returns the exit status, negative for a signal."""
        await self._ended.wait()
        return int(self._process.returncode)

    def close(self) -> None:
        """Closes the pipes; unread output is lost."""
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
