"""The training process: `python -m leadline.server.workers.process`.

It serves one assignment and exits, which frees all its memory, including the GPU's.
"""

import argparse
import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from leadline.server.workers.parent import die_with_parent

# Counts as half of the machine's memory in addition to the process's own: see proc(5).
_OOM_SCORE_ADJUSTMENT = "500"

# Describes operators to torch's compiler, which training does not use. It takes a fifth of the
# time of importing torch, and 18 MiB.
_UNUSED_MODULE = "torch._meta_registrations"


def main() -> None:
    """Lowers the priority, then loads the modules that train."""
    parser = argparse.ArgumentParser(description="A training process of a Leadline server.")
    parser.add_argument("--niceness", type=int, default=0)
    os.nice(parser.parse_args().niceness)
    die_with_parent()
    _die_before_others()
    # Imports take a second of CPU time, at the lowered priority.
    with _quick_imports():
        from leadline.server.workers.worker import serve  # noqa: PLC0415

    serve()


@contextlib.contextmanager
def _quick_imports() -> Iterator[None]:
    """Skips a module that torch imports only for its side effects, and garbage collection.

    Imports create a million objects, which live as long as the process.
    """
    sys.modules[_UNUSED_MODULE] = ModuleType(_UNUSED_MODULE)
    gc.disable()
    yield
    gc.freeze()
    gc.enable()
    del sys.modules[_UNUSED_MODULE]  # for an explicit import


def _die_before_others() -> None:
    """Makes the kernel kill this process before the server when memory runs out."""
    with contextlib.suppress(OSError):  # a sandbox without the file
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE_ADJUSTMENT)


if __name__ == "__main__":
    # Not sys.exit: a daemon thread still reads standard input and holds the lock of
    # its buffer, which the interpreter needs at exit.
    main()
    sys.stderr.flush()
    os._exit(0)
