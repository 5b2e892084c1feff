"""The demonstration's server, as a child process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from leadline.client import Client, HealthStatus, LeadlineError, UnavailableError

_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_LOG_LINES = 20

# The value in `leadline.models.simd.instruction_set`, which the client does not import.
_INSTRUCTION_SET = "LEADLINE_SIMD_ISA"


class ServerFailedError(LeadlineError):
    """The server of the demonstration did not start or stop properly."""


@contextmanager
def running_server(data_dir: Path, flags: Sequence[str]) -> Iterator[str]:
    """Runs a server with a data directory, and yields its address.

    On an error, prints the end of the server's log to stderr.

    Raises:
        ServerFailedError: the server did not start, or ended with an error.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / "demo-server.log"
    ready = data_dir / "demo-ready.json"
    ready.unlink(missing_ok=True)
    process = _start(data_dir, ready, log, flags)
    try:
        yield _wait_until_serving(process, ready)
        _stop(process)
    except Exception:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        sys.stderr.write(f"The end of the server's log, {log}:\n{tail}\n")
        raise
    finally:
        _end(process)
        ready.unlink(missing_ok=True)


def _start(data_dir: Path, ready: Path, log: Path, flags: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [
        *(sys.executable, "-m", "leadline.client.cli", "serve"),
        *("--host", "127.0.0.1", "--port", "0"),
        *("--metrics-port", "0"),
        *("--data-dir", str(data_dir)),
        *("--ready-file", str(ready)),
        *flags,
    ]
    # Drops variables with settings, which are for another server, except for the instruction set,
    # which applies to every process.
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("LEADLINE_") or key == _INSTRUCTION_SET
    }
    with log.open("wb") as stream:
        # In its own session, so that Ctrl-C reaches only this process, which then stops the server.
        return subprocess.Popen(  # noqa: S603 - this very program
            command, stdout=stream, stderr=stream, env=environment, start_new_session=True
        )


def _wait_until_serving(process: subprocess.Popen[bytes], ready: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailedError(f"the server ended with status {process.returncode}")
        if ready.exists():
            target = str(json.loads(ready.read_text())["target"])
            if _serves(target):
                return target
        time.sleep(0.05)
    raise ServerFailedError(f"the server did not serve within {_START_SECONDS:g} s")


def _serves(target: str) -> bool:
    with Client(target, timeout=5) as client:
        try:
            return client.health() is HealthStatus.SERVING
        except UnavailableError:
            return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        status = process.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        raise ServerFailedError(f"the server did not stop within {_STOP_SECONDS:g} s") from None
    if status != 0:
        raise ServerFailedError(f"the server stopped with status {status}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
