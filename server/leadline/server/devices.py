"""Which devices there are."""

import os
from pathlib import Path

# What the driver of NVIDIA's GPUs makes, on Linux itself and below Windows.
_DRIVER = (Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))

# What a container may use, in microseconds of each period, or "max".
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def training_devices(setting: str) -> list[str]:
    """The devices that `setting` names; "auto" is every GPU, else the CPU."""
    if setting == "auto":
        return [f"cuda:{index}" for index in range(_gpu_count())] or ["cpu"]
    return [device.strip() for device in setting.split(",")]


def inference_device(setting: str) -> str:
    """The device that `setting` names; "auto" is the first GPU, else the CPU."""
    return training_devices(setting)[0]


def _gpu_count() -> int:
    if not any(path.exists() for path in _DRIVER):
        return 0
    # Seconds to load, which a server without a GPU does without.
    import torch  # noqa: PLC0415

    return torch.cuda.device_count()


def available_cores() -> int:
    """The cores that this process may use, by its affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
    except (OSError, ValueError):
        return cores
    if quota == "max":
        return cores
    return max(1, min(cores, int(quota) // int(period)))
