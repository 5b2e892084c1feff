"""Checks the processor, the memory and the versions that a server needs."""

import importlib.metadata
import platform
import resource
import sqlite3
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import psutil

from leadline.models.simd.instruction_set import (
    VARIABLE,
    InstructionSet,
    UnsupportedInstructionSetError,
    available_instruction_sets,
    instruction_set,
)
from leadline.server.devices import available_cores
from leadline.server.doctor.check import Check, Status
from leadline.server.memory import cgroup_memory, in_bytes, usable_memory
from leadline.server.scheduling.capacity import Capacity
from leadline.server.settings import Settings
from leadline.server.workers.memory import MEMORY_FLAG, worker_limit

# A worker on the CPU needs about 1 GB, and the server 0.2 GB.
_ENOUGH_MEMORY = 2 << 30

# Each connection needs a descriptor, and the server reserves 256 for everything else.
_ENOUGH_DESCRIPTORS = 4_096

# The first version with RETURNING, which the job store uses.
_SQLITE_NEEDED = (3, 35, 0)


def check_versions() -> Check:
    """Reports the versions of the main packages."""
    versions = {"leadline": _version("leadline"), "python": platform.python_version()}
    versions |= {name: _version(name) for name in ("torch", "llvmlite", "grpcio")}
    missing = [name for name, version in versions.items() if not version]
    shown = ", ".join(f"{name} {versions[name]}" for name in ("leadline", "python", "torch"))
    if missing:
        advice = "in a clone of the repository, run pip install '.[server]'"
        value = f"missing: {', '.join(missing)}"
        return Check("versions", Status.FAILED, value, versions, advice)
    return Check("versions", Status.OK, value=shown, detail=versions)


def check_processor() -> Check:
    """Reports the processor, and the instruction set that a server would use."""
    detail: dict[str, Any] = {
        "model": _processor_name(),
        "machine": platform.machine(),
        "cores": available_cores(),
        "available": [isa.value for isa in available_instruction_sets()],
    }
    try:
        chosen = instruction_set()
    except UnsupportedInstructionSetError as error:
        detail |= {"instruction_set": None, "lanes": None}
        advice = f"unset {VARIABLE}, or name one that the processor supports"
        return Check("processor", Status.FAILED, str(error), detail, advice)
    slow = chosen is InstructionSet.BASELINE and platform.machine() == "x86_64"
    return Check(
        "processor",
        Status.WARNING if slow else Status.OK,
        f"{detail['model']}, {detail['cores']} cores, {chosen.value}, "
        f"{chosen.lanes} images at a time",
        detail={**detail, "instruction_set": chosen.value, "lanes": chosen.lanes},
        advice="without AVX2 the CPU is about three times slower",
    )


def check_memory() -> Check:
    """Checks how much main memory this process may use."""
    memory = psutil.virtual_memory()
    limit, left = cgroup_memory()
    available = memory.available if left is None else min(memory.available, left)
    detail = {"total_bytes": memory.total, "available_bytes": available, "limit_bytes": limit}
    within = "" if limit is None else f", a limit of {in_bytes(limit)}"
    scarce = available < _ENOUGH_MEMORY
    return Check(
        "memory",
        Status.WARNING if scarce else Status.OK,
        f"{in_bytes(available)} available of {in_bytes(memory.total)}{within}",
        detail=detail,
        advice="a worker needs about 1 GB: use --spare-workers 0, or free some memory"
        if scarce
        else "",
    )


def check_worker_memory(settings: Settings) -> Check:
    """Reports the memory limit of a worker on each device, and what enforces it."""
    capacity, setting = Capacity.of(settings), settings.worker_memory_bytes
    if not setting:
        return Check(
            "worker memory",
            Status.WARNING,
            "no limit",
            detail={"devices": {}},
            advice=f"one job can use all memory: set {MEMORY_FLAG} to auto",
        )
    devices: dict[str, dict[str, Any]] = {}
    together = 0
    for name, device in capacity.devices.items():
        ordinary, in_sweep = (
            worker_limit(setting, capacity.share(name, in_sweep=in_sweep), name)
            for in_sweep in (False, True)
        )
        means = ["rlimit", "watchdog"] if name == "cpu" else ["watchdog"]
        devices[name] = {"job_bytes": ordinary, "sweep_job_bytes": in_sweep, "means": means}
        together += max(device.jobs * ordinary, device.sweep_jobs * in_sweep)
    too_much = together > usable_memory()
    return Check(
        "worker memory",
        Status.WARNING if too_much else Status.OK,
        "; ".join(
            f"{in_bytes(found['job_bytes'])} for a job on {name}, "
            f"{in_bytes(found['sweep_job_bytes'])} for a sweep's job, "
            f"by {' and '.join(found['means'])}"
            for name, found in devices.items()
        ),
        detail={"devices": devices},
        advice=f"all workers together may hold {in_bytes(together)}, more than exists: lower "
        f"{MEMORY_FLAG}, --jobs-per-device or --worker-threads"
        if too_much
        else "",
    )


def check_descriptors() -> Check:
    """Checks how many files and connections a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = hard != resource.RLIM_INFINITY and hard < _ENOUGH_DESCRIPTORS
    shown = "no limit" if hard == resource.RLIM_INFINITY else f"{hard:,}"
    return Check(
        "descriptors",
        Status.WARNING if few else Status.OK,
        f"{shown} (ulimit -Hn); the server raises its limit to it",
        detail={"soft": soft, "hard": hard},
        advice="each connection needs one: raise the limit, for example LimitNOFILE= in systemd",
    )


def check_sqlite() -> Check:
    """Checks the version of SQLite."""
    old = sqlite3.sqlite_version_info < _SQLITE_NEEDED
    needed = ".".join(map(str, _SQLITE_NEEDED))
    return Check(
        "sqlite",
        Status.FAILED if old else Status.OK,
        sqlite3.sqlite_version,
        detail={"version": sqlite3.sqlite_version, "needed": needed},
        advice=f"use a Python with SQLite {needed} or newer",
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return str(llvm.get_host_cpu_name())
