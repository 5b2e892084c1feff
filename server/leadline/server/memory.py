"""Main memory: the machine's, a process's, and the processes killed for lack of it.

Sources: the kernel's "Control Group v2" and "Memory Resource Controller" (v1), and proc(5).
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import psutil

LEAST_WORKER_MEMORY = 1 << 30
"""The smallest memory limit of a worker, which holds 0.6 GiB before its first batch."""

_CGROUPS = Path("/sys/fs/cgroup")

# The files of a control group in version 2 and 1: its limit, its usage, its event counters.
_V2_FILES = ("memory.max", "memory.current", "memory.events")
_V1_FILES = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control")

_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def in_bytes(count: float) -> str:
    """A number of bytes in binary units, for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004 - binary units
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def cgroup_memory() -> tuple[int | None, int | None]:
    """The lowest limit of this process's control groups, and the memory left below it."""
    limit = left = None
    total = psutil.virtual_memory().total
    for limit_file, usage_file, _ in _cgroup_files():
        try:
            most = limit_file.read_text().strip()
            used = int(usage_file.read_text())
        except (OSError, ValueError):
            continue
        # Version 1 uses an enormous number for no limit.
        if most != "max" and int(most) < total:
            limit = min(int(most), limit or int(most))
            left = min(max(0, int(most) - used), int(most) if left is None else left)
    return limit, left


def usable_memory() -> int:
    """The machine's memory in bytes, or less if control groups limit it."""
    limit, _ = cgroup_memory()
    return limit or psutil.virtual_memory().total


def process_memory(pid: int | str = "self") -> dict[str, int]:
    """The memory of a process in bytes, by the names of /proc/PID/status.

    `VmRSS` is resident, `VmHWM` its peak. `RssAnon` and `RssShmem` are the parts that no file
    backs. RLIMIT_DATA limits `VmData`.

    Raises:
        OSError: there is no such process.
    """
    text = Path(f"/proc/{pid}/status").read_text()
    kibibytes = re.findall(r"^((?:Vm|Rss)\w+):\s+(\d+) kB$", text, re.MULTILINE)
    return {name: int(count) << 10 for name, count in kibibytes}


def oom_kills() -> int:
    """How many processes the kernel has killed because memory ran out.

    Counts those of this process's control group, or of the whole machine without one.
    """
    files = [events for _, _, events in _cgroup_files()]
    for file in (*files[:1], Path("/proc/vmstat")):
        with contextlib.suppress(OSError):
            if match := _OOM_KILLS.search(file.read_text()):
                return int(match[1])
    return 0


def _cgroup_files() -> Iterator[tuple[Path, Path, Path]]:
    """The files of this process's control group, then those of its parent groups."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            root, names = _CGROUPS / "memory", _V1_FILES
        elif not controllers:
            root, names = _CGROUPS, _V2_FILES
        else:
            continue
        folder = root / path.lstrip("/")
        # In a container the path may be the host's, while the root is the container's group.
        around = [above for above in folder.parents if above.is_relative_to(root)]
        for group in (folder, *around) if folder != root else (root,):
            limit, usage, events = (group / name for name in names)
            if os.access(limit, os.R_OK):
                yield limit, usage, events
