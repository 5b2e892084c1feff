"""The training process: `python -m leadline.server.workers.process`.

It serves one assignment and exits, which frees all its memory, including the GPU's.
"""

import argparse
import contextlib
import os
import sys
from pathlib import Path

from leadline.server.workers.parent import die_with_parent

# Counts as half of the machine's memory in addition to the process's own: see proc(5).
_OOM_SCORE_ADJUSTMENT = "500"


def main() -> None:
    """Lowers the priority, then loads the modules that train."""
    parser = argparse.ArgumentParser(description="A training process of a Leadline server.")
    parser.add_argument("--niceness", type=int, default=0)
    os.nice(parser.parse_args().niceness)
    die_with_parent()
    _die_before_others()
    # Imports take seconds of CPU time, at the lowered priority.
    from leadline.server.workers.worker import serve  # noqa: PLC0415

    serve()


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
