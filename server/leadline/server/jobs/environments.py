"""Differences between the environments of a job's workers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from leadline.server.jobs.job import Started

_NAMES = {
    "device": "the device",
    "device_name": "the processor",
    "instruction_set": "the instruction set",
    "threads": "the number of threads",
    "leadline_version": "the version of Leadline",
    "torch_version": "the version of torch",
    "python_version": "the version of Python",
}


def differences(before: Started, now: Started) -> list[str]:
    """Returns the differences between two workers' starts, such as "the processor (A -> B)".

    Ignores values that an older server did not record.
    """
    old, new = _facts(before), _facts(now)
    return [
        f"{title} ({old[name]} -> {new[name] or 'none'})"
        for name, title in _NAMES.items()
        if old[name] and old[name] != new[name]
    ]


def advice(changes: Sequence[str], before: Started) -> str:
    """Returns a sentence on why an epoch was not reproduced, and what to do."""
    if not changes:
        return (
            "nothing that is recorded has changed, so look for another build of torch or faulty "
            "memory; submit the job again to train it as this machine computes"
        )
    recorded = before.environment.instruction_set
    pinned = f", with LEADLINE_SIMD_ISA={recorded}" if recorded else ""
    return (
        f"since the job began, {' and '.join(changes)} changed; submit the job again to train it "
        f"as this machine computes, or resume such jobs where they began{pinned}"
    )


def _facts(started: Started) -> Mapping[str, Any]:
    return {
        "device": started.device,
        "device_name": started.device_name,
        **asdict(started.environment),
    }
