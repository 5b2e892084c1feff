"""The processor, the memory, and the programs that a server needs."""

import importlib.metadata
import os
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
from leadline.server.doctor.check import Check, Status, in_bytes

# A worker on the CPU takes about 1 GB, and the server 0.2 GB.
_ENOUGH_MEMORY = 2 << 30

# Each connection takes a descriptor, and the server keeps 256 for all else.
_ENOUGH_DESCRIPTORS = 4_096

# The first version with RETURNING, which the job store uses.
_SQLITE_NEEDED = (3, 35, 0)

_CGROUPS = Path("/sys/fs/cgroup")


def check_versions() -> Check:
    """Which versions run."""
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
    """Which processor there is, and which of its instructions a server would use."""
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
        advice = f"unset {VARIABLE}, or name one that the processor has"
        return Check("processor", Status.FAILED, str(error), detail, advice)
    slow = chosen is InstructionSet.BASELINE and platform.machine() == "x86_64"
    return Check(
        "processor",
        Status.WARNING if slow else Status.OK,
        f"{detail['model']}, {detail['cores']} cores, {chosen.value}, "
        f"{chosen.lanes} images at a time",
        detail={**detail, "instruction_set": chosen.value, "lanes": chosen.lanes},
        advice="without AVX2 the CPU takes about three times as long",
    )


def check_memory() -> Check:
    """How much main memory this process may use."""
    memory = psutil.virtual_memory()
    limit, left = _cgroup_memory()
    available = memory.available if left is None else min(memory.available, left)
    detail = {"total_bytes": memory.total, "available_bytes": available, "limit_bytes": limit}
    within = "" if limit is None else f", a limit of {in_bytes(limit)}"
    scarce = available < _ENOUGH_MEMORY
    return Check(
        "memory",
        Status.WARNING if scarce else Status.OK,
        f"{in_bytes(available)} available of {in_bytes(memory.total)}{within}",
        detail=detail,
        advice="a worker takes about 1 GB: use --spare-workers 0, or free some memory"
        if scarce
        else "",
    )


def check_descriptors() -> Check:
    """How many files and connections a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = hard != resource.RLIM_INFINITY and hard < _ENOUGH_DESCRIPTORS
    shown = "no limit" if hard == resource.RLIM_INFINITY else f"{hard:,}"
    return Check(
        "descriptors",
        Status.WARNING if few else Status.OK,
        f"{shown} (ulimit -Hn), to which the server raises its own limit",
        detail={"soft": soft, "hard": hard},
        advice="each connection takes one: raise the limit, LimitNOFILE= of a systemd unit",
    )


def check_sqlite() -> Check:
    """Which SQLite keeps the jobs."""
    old = sqlite3.sqlite_version_info < _SQLITE_NEEDED
    needed = ".".join(map(str, _SQLITE_NEEDED))
    return Check(
        "sqlite",
        Status.FAILED if old else Status.OK,
        sqlite3.sqlite_version,
        detail={"version": sqlite3.sqlite_version, "needed": needed},
        advice=f"use a Python that is built with SQLite {needed} or newer",
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


def _cgroup_memory() -> tuple[int | None, int | None]:
    """The tightest limit on this process's control groups, and what is left below it.

    Source: the kernel's "Control Group v2", memory.max and memory.current.
    """
    limit = left = None
    for folder in _control_groups():
        try:
            most = (folder / "memory.max").read_text().strip()
            used = int((folder / "memory.current").read_text())
        except (OSError, ValueError):
            continue
        if most != "max":
            limit = min(int(most), limit or int(most))
            left = min(max(0, int(most) - used), int(most) if left is None else left)
    return limit, left


def _control_groups() -> list[Path]:
    """The control group of this process, and those around it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    paths = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    groups = []
    for path in paths:
        folder = _CGROUPS / path.lstrip("/")
        groups += [folder, *(above for above in folder.parents if above.is_relative_to(_CGROUPS))]
    return [folder for folder in groups if os.access(folder, os.R_OK)]
