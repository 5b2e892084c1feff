"""`leadline serve`: reads the options, then runs the service until SIGTERM or SIGINT."""

import asyncio
import ctypes
import gc
import os
import resource
import sys
from pathlib import Path

import click
import uvloop

from leadline.models.simd.compiler import DUMP_VARIABLE
from leadline.models.simd.engine_choice import UnknownEngineError, engine_choice
from leadline.models.simd.instruction_set import UnsupportedInstructionSetError, instruction_set
from leadline.server.application import ServingError, StartupError, serve
from leadline.server.command_line import settings_command
from leadline.server.settings import Settings
from leadline.server.telemetry.logs import configure_logs

_USAGE_ERROR = 2
_FAILURE = 1

# Allocated container objects between collections of the youngest generation. Calls make no
# reference cycles, and the default of 700 would scan each call in flight several times.
_GC_THRESHOLD = 20_000

# Seconds after which a thread releases the GIL if another waits. A health check takes several
# passes of the event loop, and in each it may wait this long for every busy thread.
_SWITCH_SECONDS = 0.0005

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT_BYTES = 32 << 20

# The threads of gRPC's core would use, and keep, up to eight arenas for each core of the CPU.
_ARENAS_OF_GRPCIO = 2

# A quarter of the kernel's default maximum; also used if there is no limit.
_ENOUGH_DESCRIPTORS = 1 << 18


def main(arguments: list[str]) -> int:
    """Runs the server; returns the process's exit status.

    0 after SIGTERM or SIGINT, 1 if the server could not start or continue, 2 if an
    option is wrong.
    """
    try:
        command = settings_command("serve", _run, help_text="Run the service.")
        result = command.main(arguments, prog_name="leadline serve", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    return int(result or 0)


def _run(settings: Settings) -> int:
    _check_variables()
    configure_logs(level=settings.log_level, style=settings.log_format)
    tune_process(settings.transport)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except (StartupError, ServingError) as error:
        sys.stderr.write(f"leadline serve: {error}\n")
        return _FAILURE
    return 0


def tune_process(transport: str) -> None:
    """Tunes Python and the operating system for a process that serves over a transport."""
    # Modules are never freed. Without gc.freeze, each full collection would scan them and
    # pause the event loop for a tenth of a second.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 10, 10)
    sys.setswitchinterval(_SWITCH_SECONDS)
    _allow_descriptors()
    _keep_memory(transport)


def _check_variables() -> None:
    """Rejects an invalid environment variable at startup, because every worker would fail."""
    try:
        instruction_set()
        engine_choice()
    except (UnsupportedInstructionSetError, UnknownEngineError) as error:
        raise click.UsageError(str(error)) from error
    if dump := os.environ.get(DUMP_VARIABLE):
        try:
            Path(dump).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"{DUMP_VARIABLE} is {dump!r}: it must name a folder: {error.strerror}"
            raise click.UsageError(message) from error


def _allow_descriptors() -> None:
    """Raises the soft limit on open files to the hard limit: each connection takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _keep_memory(transport: str) -> None:
    """Makes glibc keep freed memory, up to a bound.

    By default glibc returns the memory of each large message to the kernel, which
    must zero the pages again for the next message.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries lack it
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        if transport == "grpcio":
            mallopt(_M_ARENA_MAX, _ARENAS_OF_GRPCIO)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
