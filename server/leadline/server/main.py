"""`leadline serve`: reads the options, then runs the service until it is told to stop."""

import asyncio
import ctypes
import gc
import resource
import sys

import click
import uvloop

from leadline.models.simd.engine_choice import UnknownEngineError, engine_choice
from leadline.models.simd.instruction_set import UnsupportedInstructionSetError, instruction_set
from leadline.server.application import ServingError, StartupError, serve
from leadline.server.command_line import settings_command
from leadline.server.settings import Settings
from leadline.server.telemetry.logs import configure_logs

_USAGE_ERROR = 2
_FAILURE = 1

# glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 32 << 20

# A quarter of what kernels allow by default, also where a limit is none.
_ENOUGH_DESCRIPTORS = 1 << 18


def main(arguments: list[str]) -> int:
    """Runs the server; returns the process's exit status.

    0 after SIGTERM or SIGINT, 1 where the server could not start or go on, 2 where
    an option is wrong.
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
    # The modules stay to the end. To look through them for garbage again and
    # again would stop the event loop for a tenth of a second each time.
    gc.collect()
    gc.freeze()
    _allow_descriptors()
    _keep_memory()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except (StartupError, ServingError) as error:
        sys.stderr.write(f"leadline serve: {error}\n")
        return _FAILURE
    return 0


def _check_variables() -> None:
    """Refuses a wrong variable now: the workers, who inherit it, would all end by it."""
    try:
        instruction_set()
        engine_choice()
    except (UnsupportedInstructionSetError, UnknownEngineError) as error:
        raise click.UsageError(str(error)) from error


def _allow_descriptors() -> None:
    """Raises the limit on open files to what is allowed: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _keep_memory() -> None:
    """Has glibc keep what is freed, up to a bound.

    Large messages come one after another. It would give the memory of each
    back to the kernel, which clears it page by page for the next.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
