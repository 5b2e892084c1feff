"""Checks the GPUs: the driver, torch, and captured graphs."""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leadline.server.devices import NVIDIA_DRIVER
from leadline.server.doctor.check import Check, Status
from leadline.server.doctor.child import Outcome, run, run_module
from leadline.server.memory import in_bytes

_DRIVER_SECONDS = 20.0
_TORCH_SECONDS = 90.0

_QUERY = "index,name,driver_version,compute_mode,memory.total,memory.used"

# The server and each job create a separate context on the GPU.
_LITTLE_MEMORY = 2 << 30

_HIDDEN = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Gpus:
    """The results of the GPU checks.

    Attributes:
        checks: the results.
        usable: the GPUs on which torch can compute, by torch's names.
    """

    checks: tuple[Check, ...]
    usable: tuple[str, ...] = ()


def find_gpus(devices: str, inference_device: str) -> Gpus:
    """Looks for the GPUs of the settings, with nvidia-smi and with torch."""
    names = {name.strip() for name in f"{devices},{inference_device}".split(",")}
    if names == {"cpu"}:
        return Gpus((_driver(Status.SKIPPED, "the settings name only the CPU"),))
    program = shutil.which("nvidia-smi")
    named = sorted(name for name in names if name.startswith("cuda:"))
    if program is None and not any(path.exists() for path in NVIDIA_DRIVER):
        return Gpus((_without_driver(named),))
    driver, count = _ask_driver(program)
    if driver.status is Status.FAILED:
        return Gpus((driver,))
    if os.environ.get(_HIDDEN) in {"", "-1"} and not named:
        hidden = _torch(Status.SKIPPED, f"{_HIDDEN} hides every GPU")
        return Gpus((driver, hidden))
    if count == 0 and not named:
        return Gpus((driver,))
    return _with_torch(driver, run_module("agreement", "gpus", seconds=_TORCH_SECONDS), named)


def check_capture(device: str, outcome: Outcome) -> Check:
    """Checks that a GPU can capture and replay a step and an evaluation."""
    reports = [line for line in outcome.lines if "capture_failure" in line]
    name = f"capture {device}"
    if not reports:
        return Check(
            name,
            Status.FAILED,
            outcome.error or "no result",
            advice="jobs on this GPU would fail too: use --devices cpu "
            "--inference-device cpu, or see the driver's errors in the kernel log",
        )
    failure = reports[0]["capture_failure"]
    return Check(
        name,
        Status.OK if failure is None else Status.WARNING,
        failure or "a training step and an evaluation were captured and replayed",
        detail={"failure": failure},
        advice="the server works without graphs, but more slowly",
    )


def supports(architectures: Sequence[str], capability: Sequence[int]) -> bool:
    """Whether a build of torch has code that a GPU can run.

    Machine code ("sm_80") runs on newer GPUs of the same major version, and PTX ("compute_80") on
    all newer GPUs. Both run on the version that they name.

    Source: the CUDA C++ programming guide, "Application compatibility".
    """
    major, minor = capability
    for kind, digits in re.findall(r"\b(sm|compute)_(\d+)", " ".join(architectures)):
        built = int(digits[:-1]), int(digits[-1])
        if kind == "compute" and built <= (major, minor):
            return True
        if kind == "sm" and built[0] == major and built[1] <= minor:
            return True
    return False


def judge_gpu(gpu: dict[str, Any], architectures: Sequence[str]) -> Check:
    """Checks one GPU from the description of `leadline.server.doctor.agreement`."""
    capability = ".".join(map(str, gpu["capability"]))
    memory = f"{in_bytes(gpu['free_bytes'])} free of {in_bytes(gpu['total_bytes'])}"
    status, advice = Status.OK, ""
    if not supports(architectures, gpu["capability"]):
        status = Status.FAILED
        advice = f"this torch has code only for {', '.join(architectures)}: install another build"
    elif gpu["free_bytes"] < _LITTLE_MEMORY:
        status = Status.WARNING
        advice = "another program uses its memory: see nvidia-smi"
    return Check(
        f"gpu {gpu['device']}",
        status,
        f"{gpu['name']}, compute capability {capability}, {memory}",
        detail={**gpu, "architectures": list(architectures)},
        advice=advice,
    )


def _without_driver(named: list[str]) -> Check:
    if not named:
        return _driver(Status.SKIPPED, "no NVIDIA driver: the CPU trains and predicts")
    return _driver(
        Status.FAILED,
        f"no NVIDIA driver, but the settings name {', '.join(named)}",
        advice="install the driver, give the container the GPU, or use auto or cpu",
    )


def _ask_driver(program: str | None) -> tuple[Check, int | None]:
    """Returns the check of the driver and its number of GPUs, or None if unknown."""
    if program is None:
        return _driver(Status.OK, "loaded; nvidia-smi is not installed"), None
    outcome = run(
        [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"], seconds=_DRIVER_SECONDS
    )
    if outcome.error is not None and "No devices were found" not in outcome.output:
        check = _driver(
            Status.FAILED,
            f"nvidia-smi fails: {outcome.error}",
            advice="reload or reinstall the driver, or use --devices cpu --inference-device cpu",
        )
        return check, None
    rows = [[cell.strip() for cell in line.split(",")] for line in outcome.output.splitlines()]
    gpus = [dict(zip(_QUERY.split(","), row, strict=True)) for row in rows if len(row) > 1]
    return _judge_driver(gpus), len(gpus)


def _judge_driver(gpus: list[dict[str, str]]) -> Check:
    if not gpus:
        return _driver(Status.SKIPPED, "loaded, but without a GPU")
    names = ", ".join(gpu["name"] for gpu in gpus)
    exclusive = [gpu["index"] for gpu in gpus if gpu["compute_mode"].startswith("Exclusive")]
    return _driver(
        Status.FAILED if exclusive else Status.OK,
        f"{gpus[0]['driver_version']}, {names}",
        detail={"gpus": gpus},
        advice="the server and each job are separate processes: allow several with "
        f"nvidia-smi -i {','.join(exclusive)} -c DEFAULT",
    )


def _with_torch(driver: Check, outcome: Outcome, named: list[str]) -> Gpus:
    if not outcome.lines:
        return Gpus((driver, _torch(Status.FAILED, outcome.error or "no result")))
    report = outcome.lines[0]
    if report["cuda"] is None or report["error"] is not None or not report["gpus"]:
        why = report["error"] or "torch detects no GPU"
        if report["cuda"] is None:
            why = "this build of torch supports only the CPU"
        return Gpus((driver, _torch(Status.FAILED, why, detail=report)))
    checks = [judge_gpu(gpu, report["architectures"]) for gpu in report["gpus"]]
    devices = [gpu["device"] for gpu in report["gpus"]]
    torch = _torch(Status.OK, f"CUDA {report['cuda']}, {len(devices)} GPUs", detail=report)
    if missing := [name for name in named if name not in devices]:
        torch = _torch(
            Status.FAILED,
            f"the settings name {', '.join(missing)}, but torch has {', '.join(devices)}",
        )
    usable = tuple(
        device
        for device, check in zip(devices, checks, strict=True)
        if check.status is not Status.FAILED
    )
    return Gpus((driver, torch, *checks), usable)


def _driver(status: Status, value: str, *, detail: Any = None, advice: str = "") -> Check:
    return Check("gpu driver", status, value, detail=detail or {}, advice=advice)


def _torch(status: Status, value: str, *, detail: Any = None) -> Check:
    advice = (
        "install a torch whose CUDA version the driver supports, or use --devices cpu "
        "--inference-device cpu"
    )
    return Check("torch on the gpu", status, value, detail=detail or {}, advice=advice)
