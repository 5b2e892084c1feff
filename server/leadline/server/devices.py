"""Which devices there are."""

import torch


def training_devices(setting: str) -> list[str]:
    """The devices that `setting` names; "auto" is every GPU, else the CPU."""
    if setting == "auto":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
    return [device.strip() for device in setting.split(",")]


def inference_device(setting: str) -> str:
    """The device that `setting` names; "auto" is the first GPU, else the CPU."""
    return training_devices(setting)[0]
