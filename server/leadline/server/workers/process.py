"""The training process: `python -m leadline.server.workers.process`.

It serves one assignment and ends: all its memory, the GPU's included, is gone
with it.
"""

import argparse
import ctypes
import os
import signal
import sys

# From <linux/prctl.h>: the signal to get when the parent ends.
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Takes its place behind the server, then loads what trains."""
    parser = argparse.ArgumentParser(description="A training process of a Leadline server.")
    parser.add_argument("--niceness", type=int, default=0)
    os.nice(parser.parse_args().niceness)
    _die_with_server()
    # Seconds of computing, which give way to predictions only now.
    from leadline.server.workers.worker import serve  # noqa: PLC0415

    serve()


def _die_with_server() -> None:
    """Has the kernel end this process with the server's, even while it is stopped."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    # Not sys.exit: a daemon thread still reads standard input, and the
    # interpreter cannot take its lock from it on the way out.
    main()
    sys.stderr.flush()
    os._exit(0)
