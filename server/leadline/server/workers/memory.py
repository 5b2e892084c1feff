"""Limits a worker's memory, and recognises that memory has run out.

On the CPU the worker sets RLIMIT_DATA before it trains, so an allocation above the limit
fails. On a GPU, address space that CUDA reserves may count as data. There, and for memory
that is not data, the server monitors the worker's memory.
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

# The fraction left to the server, its spare workers and the page cache.
_LEFT_FREE = 0.2
_LEAST_LEFT_FREE = 768 << 20

# CUDA and its libraries also use main memory; how much depends on their version.
_LEAST_ON_GPU = 4 << 30

# Reserved until memory has run out, because the worker needs it to report that.
_RESERVE = 64 << 20

# Messages of torch, NumPy, the C++ runtime, LLVM, OpenBLAS, the loader, Python and CUDA.
_SIGNS = re.compile(
    r"out of memory|can.?t allocate memory|cannot allocate memory|unable to allocate|bad_alloc"
    r"|memory allocation|MemoryError|can't start new thread|failed to map segment|ALLOC_FAILED",
    re.IGNORECASE,
)


def worker_limit(setting: int | Literal["auto"], share: float, device: str) -> int:
    """The most bytes that a worker may hold; 0 for no limit.

    Args:
        setting: the option; "auto" for the worker's share of the available memory.
        share: the fraction of the machine that the worker's job takes.
        device: such as "cuda:0" or "cpu".
    """
    if setting != "auto":
        return setting
    total = usable_memory()
    spare = total - max(_LEFT_FREE * total, _LEAST_LEFT_FREE)
    least = LEAST_WORKER_MEMORY if device == "cpu" else _LEAST_ON_GPU
    return max(least, int(spare * share))


def limit_memory(limit: int) -> None:
    """Limits this process's memory to `limit` bytes, without mapped files."""
    held = process_memory()
    # Data that is not resident, such as unused stacks, does not count towards the limit.
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
    """Whether an exception or one of its causes means that memory has run out."""
    while error is not None:
        match error:
            case MemoryError() | OSError(errno=errno.ENOMEM):
                return True
            case RuntimeError() | ImportError() if mentions_exhaustion(str(error)):
                return True
        error = error.__cause__ or error.__context__
    return False


def mentions_exhaustion(text: str) -> bool:
    """Whether a text, such as the end of a log, mentions that memory has run out."""
    return _SIGNS.search(text) is not None


def describe_exhaustion(held: int, limit: int, why: str) -> str:
    """Describes why a worker could not continue, and what to do.

    Args:
        held: the worker's peak memory in bytes.
        limit: the worker's memory limit in bytes; 0 for no limit.
        why: what failed.
    """
    most = f"may hold {in_bytes(limit)} ({MEMORY_FLAG})" if limit else "has no limit"
    advice = f", or raise {MEMORY_FLAG}" if limit else ""
    return (
        f"the worker ran out of memory: it {most} and held {in_bytes(held)}: {why}: "
        f"use a smaller batch_size or fewer blocks{advice}"
    )
