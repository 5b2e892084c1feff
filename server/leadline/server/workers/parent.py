"""Ties the life of a process to that of the server that started it."""

import ctypes
import signal

# From <linux/prctl.h>: sets the signal to receive when the parent ends.
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Makes the kernel kill this process when the server ends, even if it is suspended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
