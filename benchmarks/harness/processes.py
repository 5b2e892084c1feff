"""Servers as processes: pinned to a core, waited for, and ended with all their children."""

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
    """A server did not start, or ended by itself: the message has the end of its log."""


class ServerProcess:
    """A process in its own session, so that its children end with it."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        core: int | None,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts it.

        Args:
            command: what to run.
            log: takes what it prints, both of its outputs.
            core: the one core that it and its children may use; None for all.
            folder: to run it in.
            environment: variables that it has beside this process's own.
        """
        self._log = log
        # The kernel asks it to end should this process be killed.
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
        """Its process id; what pins it becomes what it starts, so it is the server's."""
        return self._process.pid

    def wait_until(self, ready: Callable[[], bool], *, poll_seconds: float = 0.1) -> None:
        """Asks every `poll_seconds` until the server is ready.

        Raises:
            ServerError: it ended, or it is not ready after two minutes.
        """
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self._process.poll() is not None:
                raise ServerError(f"it ended with {self._process.returncode}:\n{self.log_end()}")
            if time.monotonic() > deadline:
                raise ServerError(f"it is not ready after {START_SECONDS:.0f} s:\n{self.log_end()}")
            time.sleep(poll_seconds)

    def log_end(self) -> str:
        """The last of what it printed."""
        return self._log.read_text(errors="replace")[-_LOG_CHARACTERS:]

    def stop(self) -> None:
        """Asks it to end, then kills what is left of its session."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):  # what follows cannot be refused
            self._process.wait(_STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):  # it left nothing behind
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
