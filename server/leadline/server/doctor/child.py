"""Runs programs that may hang, with a time limit."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

# A process that hangs in a system call ignores even SIGKILL.
_KILL_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a program.

    Attributes:
        output: its standard output.
        error: why it failed, in one line; None on success.
    """

    output: str
    error: str | None

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The complete lines of the output, parsed as JSON objects."""
        lines = self.output.split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]


def run(
    command: Sequence[str], *, seconds: float, environment: Mapping[str, str] | None = None
) -> Outcome:
    """Runs a program, and kills it after the time limit."""
    # Files, not pipes: their content is available even if the program never ends.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(  # noqa: S603 - programs of the doctor's choice
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={**os.environ, **(environment or {})},
            )
        except OSError as error:
            return Outcome(output="", error=f"{command[0]} cannot be run: {error.strerror}")
        failure = _wait(process, seconds)
        output.seek(0)
        errors.seek(0)
        text, log = (file.read().decode(errors="replace") for file in (output, errors))
    if failure is None and process.returncode:
        last = (log.strip() or text.strip() or "it says nothing").splitlines()[-1]
        status = process.returncode
        ending = f"killed by signal {-status}" if status < 0 else f"status {status}"
        failure = f"{ending}: {last}"
    return Outcome(output=text, error=failure)


def run_module(name: str, *arguments: str, seconds: float) -> Outcome:
    """Runs a module of this package with a temporary cache folder."""
    with tempfile.TemporaryDirectory(
        prefix="leadline-doctor-", ignore_cleanup_errors=True
    ) as folder:
        environment = {
            "XDG_CACHE_HOME": folder,
            "CUDA_CACHE_PATH": folder,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, "-m", f"{__package__}.{name}", *arguments]
        return run(command, seconds=seconds, environment=environment)


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> str | None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_SECONDS)
        return f"no result within {seconds:g} s"
    return None
