"""Server processes: pinned to a core, and stopped with all their children."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

START_SECONDS = 120.0
_STOP_SECONDS = 20.0
_LOG_CHARACTERS = 4_000


class ServerError(Exception):
    """A server did not start, or exited; the message has the end of its log."""


class ServerProcess:
    """A process in its own session, so that stopping it also stops its children."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        core: int | None,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the process.

        Args:
            command: the command line.
            log: the file for its standard output and standard error.
            core: the only core for it and its children; None for all cores.
            folder: its working directory.
            environment: variables to add to this process's own.
        """
        self._log = log
        # The kernel sends it SIGTERM if this process is killed.
        prefix = ["setpriv", "--pdeathsig", "TERM"]
        if core is not None:
            prefix += ["taskset", "--cpu-list", str(core)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id of the server, which replaces the command that pins it."""
        return self._process.pid

    def wait_until(self, ready: Callable[[], bool], *, poll_seconds: float = 0.1) -> None:
        """Polls every `poll_seconds` until the server is ready.

        Raises:
            ServerError: the server exited, or is not ready after two minutes.
        """
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self._process.poll() is not None:
                raise ServerError(f"it ended with {self._process.returncode}:\n{self.log_end()}")
            if time.monotonic() > deadline:
                raise ServerError(f"it is not ready after {START_SECONDS:.0f} s:\n{self.log_end()}")
            time.sleep(poll_seconds)

    def log_end(self) -> str:
        """Returns the end of its log."""
        return self._log.read_text(errors="replace")[-_LOG_CHARACTERS:]

    def stop(self) -> None:
        """Stops it, then kills the rest of its session."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):  # SIGKILL follows
            self._process.wait(_STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):  # no process of the session is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def free_port() -> int:
    """Returns a TCP port on which nothing listens on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
