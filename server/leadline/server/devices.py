"""The devices and CPU cores of this machine."""

import os
from pathlib import Path

# Files of NVIDIA's driver on Linux and in WSL.
NVIDIA_DRIVER = (Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))

# The CPU quota of a container: microseconds per period or "max", then the period.
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def training_devices(setting: str) -> list[str]:
    """The devices that `setting` names; "auto" means all GPUs, or the CPU without one."""
    if setting == "auto":
        return [f"cuda:{index}" for index in range(_gpu_count())] or ["cpu"]
    return [device.strip() for device in setting.split(",")]


def inference_device(setting: str) -> str:
    """The device that `setting` names; "auto" means the first GPU, or the CPU without one."""
    return training_devices(setting)[0]


def _gpu_count() -> int:
    if not any(path.exists() for path in NVIDIA_DRIVER):
        return 0
    # torch takes seconds to load, and a server without a GPU does not need it.
    import torch  # noqa: PLC0415

    return torch.cuda.device_count()


def available_cores() -> int:
    """The CPU cores that this process may use, by its affinity and cgroup quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
    except (OSError, ValueError):
        return cores
    if quota == "max":
        return cores
    return max(1, min(cores, int(quota) // int(period)))
