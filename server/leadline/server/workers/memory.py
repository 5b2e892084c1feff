"""The limit on a worker's memory, and how to recognise that memory has run out.

On the CPU the worker sets RLIMIT_DATA before it trains: an allocation above the limit fails,
so the limit is never exceeded. On a GPU address space that CUDA reserves may count as data. There,
and for memory that is not data, the server watches what the worker holds.
"""

import errno
import re
import resource
from typing import Literal

from leadline.server.memory import (
    LEAST_WORKER_MEMORY,
    in_bytes,
    process_memory,
    usable_memory,
)

MEMORY_FLAG = "--worker-memory-bytes"

# What is left to the server, its spare workers and the page cache.
_LEFT_FREE = 0.2
_LEAST_LEFT_FREE = 768 << 20

# CUDA and its libraries hold main memory, too; how much depends on their version.
_LEAST_ON_GPU = 4 << 30

# Kept back from the limit until memory has run out: the worker needs it to report that.
_RESERVE = 64 << 20

# What torch, NumPy, the C++ runtime, LLVM, OpenBLAS, the loader, Python and CUDA say.
_SIGNS = re.compile(
    r"out of memory|can.?t allocate memory|cannot allocate memory|unable to allocate|bad_alloc"
    r"|memory allocation|MemoryError|can't start new thread|failed to map segment|ALLOC_FAILED",
    re.IGNORECASE,
)


def worker_limit(setting: int | Literal["auto"], share: float, device: str) -> int:
    """The most bytes that a worker may hold; 0 for no limit.

    Args:
        setting: the option; "auto" for the worker's share of what the machine can spare.
        share: of the machine, that the worker's job takes.
        device: such as "cuda:0" or "cpu".
    """
    if setting != "auto":
        return setting
    total = usable_memory()
    spare = total - max(_LEFT_FREE * total, _LEAST_LEFT_FREE)
    least = LEAST_WORKER_MEMORY if device == "cpu" else _LEAST_ON_GPU
    return max(least, int(spare * share))


def limit_memory(limit: int) -> None:
    """Limits this process's memory to `limit` bytes; mapped files may come on top."""
    held = process_memory()
    # Data that is not resident, such as stacks, is there before and stays untouched.
    most = held["VmData"] + max(0, limit - held["VmRSS"])
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (max(0, most - _RESERVE), most))


def release_reserve() -> None:
    """Allows this process the reserve of `limit_memory`."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def is_exhaustion(error: BaseException | None) -> bool:
    """Whether an exception, or one that it comes from, says that memory has run out."""
    while error is not None:
        match error:
            case MemoryError() | OSError(errno=errno.ENOMEM):
                return True
            case RuntimeError() | ImportError() if mentions_exhaustion(str(error)):
                return True
        error = error.__cause__ or error.__context__
    return False


def mentions_exhaustion(text: str) -> bool:
    """Whether a text, such as the end of a log, says that memory has run out."""
    return _SIGNS.search(text) is not None


def describe_exhaustion(held: int, limit: int, why: str) -> str:
    """Why a worker could not go on, and what to do.

    Args:
        held: the most bytes that it held.
        limit: the bytes that it may hold; 0 for no limit.
        why: what failed.
    """
    most = f"may hold {in_bytes(limit)} ({MEMORY_FLAG})" if limit else "has no limit"
    advice = f", or raise {MEMORY_FLAG}" if limit else ""
    return (
        f"the worker ran out of memory: it {most} and held {in_bytes(held)}: {why}: "
        f"use a smaller batch_size or fewer blocks{advice}"
    )
