"""The limit on a worker's memory, and its detection of lack of memory, in real processes."""

import asyncio
import errno
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from leadline.models.datasets import DatasetError
from leadline.models.spec import TrainingSpec
from leadline.server.jobs.job import Failure
from leadline.server.memory import LEAST_WORKER_MEMORY, process_memory, usable_memory
from leadline.server.scheduling.capacity import Capacity
from leadline.server.settings import Settings
from leadline.server.workers.child_process import ChildProcess
from leadline.server.workers.local import LocalWorker, WorkerEnd
from leadline.server.workers.memory import mentions_exhaustion, worker_limit
from leadline.server.workers.messages import Assignment, DiskFault
from leadline.server.workers.worker import _fault

# Allocates more and more of the given kind, below a limit, and prints the result.
_EXHAUST = """
import json, mmap, sys, threading, time
import numpy as np
from leadline.server.memory import process_memory
from leadline.server.workers.memory import is_exhaustion, limit_memory, release_reserve

limit = process_memory()["VmRSS"] + (200 << 20)
take = {
    "bytes": lambda: b"x" * (16 << 20),
    "numpy": lambda: np.ones(1 << 21),
    "mmap": lambda: mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE),
    "thread": lambda: threading.Thread(target=time.sleep, args=(600,), daemon=True).start(),
}
if sys.argv[1] == "torch":
    import torch
    limit = process_memory()["VmRSS"] + (200 << 20)
    take["torch"] = lambda: torch.ones(1 << 22)
limit_memory(limit)
kept = []
try:
    while True:
        kept.append(take[sys.argv[1]]())
except BaseException as error:
    release_reserve()
    held = process_memory()["VmHWM"]
    print(json.dumps({"told": is_exhaustion(error), "held": held, "limit": limit}), flush=True)
import os
os._exit(0)
"""

_HOLD_MUCH = "import time; held = b'x' * (300 << 20); time.sleep(600)"


@pytest.mark.parametrize("what", ["bytes", "numpy", "mmap", "thread", "torch"])
def test_no_process_comes_to_hold_more_than_its_limit_and_each_failure_is_told(what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _EXHAUST, what],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    found = json.loads(done.stdout)

    assert found["told"]
    assert found["held"] <= found["limit"]


@pytest.mark.parametrize(
    ("line", "is_told"),
    [
        ("LLVM ERROR: out of memory", True),
        ("terminate called after throwing an instance of 'std::bad_alloc'", True),
        ("OpenBLAS error: Memory allocation still failed after 10 tries, giving up.", True),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED", True),
        ("OSError: [Errno 28] No space left on device", False),
        ("Segmentation fault", False),
    ],
)
def test_the_end_of_a_log_says_whether_memory_ran_out(line: str, *, is_told: bool) -> None:
    assert mentions_exhaustion(line) is is_told


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("devices", ["cpu", "cpu,cuda:0,cuda:1"])
def test_what_all_workers_may_hold_leaves_a_fifth_to_the_server(devices: str, jobs: int) -> None:
    capacity = Capacity.of(
        Settings(devices=devices, jobs_per_device=jobs, sweep_jobs_per_gpu=2, worker_threads=2)
    )

    for in_sweep in (False, True):
        limits = [
            worker_limit("auto", capacity.share(name, in_sweep=in_sweep), name)
            for name, device in capacity.devices.items()
            for _ in range(device.sweep_jobs if in_sweep else device.jobs)
        ]
        assert sum(limits) <= max(0.8 * usable_memory(), len(limits) * (4 << 30))


def test_a_number_of_bytes_is_the_limit_of_each_worker() -> None:
    assert worker_limit(2 << 30, 0.25, "cpu") == 2 << 30
    assert worker_limit(0, 0.25, "cpu") == 0


def test_a_small_share_is_not_too_small_to_train_in() -> None:
    assert worker_limit("auto", 1e-9, "cpu") == LEAST_WORKER_MEMORY
    assert worker_limit("auto", 1e-9, "cuda:0") == 4 << 30


_DECODING = DatasetError("an image cannot be decoded")
_DECODING.__cause__ = MemoryError()


@pytest.mark.parametrize(
    ("error", "device", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "cuda:0", "fewer jobs per device"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), "cuda:0", "fewer jobs per device"),
        (MemoryError(), "cuda:0", "--worker-memory-bytes"),
        (RuntimeError("std::bad_alloc"), "cpu", "--worker-memory-bytes"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "cpu", "--worker-memory-bytes"),
        (_DECODING, "cpu", "--worker-memory-bytes"),
    ],
)
def test_each_error_for_lack_of_memory_fails_the_job_with_advice(
    error: Exception, device: str, words: str, assignment: Assignment
) -> None:
    fault = _fault(error, replace(assignment, device=device))

    assert isinstance(fault, Failure)
    assert fault.reason == "OUT_OF_MEMORY"
    assert words in fault.message


def test_a_full_disk_is_no_lack_of_memory(assignment: Assignment) -> None:
    assert isinstance(_fault(OSError(errno.ENOSPC, "No space left"), assignment), DiskFault)


async def worker_of(program: str) -> LocalWorker:
    """Starts another process instead of a worker."""
    command = [sys.executable, "-c", program]
    return LocalWorker(
        await ChildProcess.spawn(command, environment=dict(os.environ), line_limit=1_000)
    )


async def end_of(worker: LocalWorker, assignment: Assignment) -> WorkerEnd:
    async with asyncio.timeout(60):
        async for message in worker.run(assignment, silence_limit=60):
            pytest.fail(f"a message: {message}")
        end = await worker.describe_end()
    await worker.kill()
    return end


@pytest.fixture
def assignment() -> Assignment:
    return Assignment(
        job_id="job",
        attempt=1,
        spec=TrainingSpec(),
        completed_epochs=0,
        resume_from=(),
        test_accuracies=(),
        device="cpu",
        threads=1,
        dataset_source="",
        dataset_cache="",
        dataset_fingerprint="",
        checkpoint_folder="",
        max_image_pixels=1,
        memory_bytes=100 << 20,
    )


async def test_the_server_ends_a_worker_that_holds_more_than_it_may(
    assignment: Assignment,
) -> None:
    end = await end_of(await worker_of(_HOLD_MUCH), assignment)

    assert (end.reason, end.is_final) == ("OUT_OF_MEMORY", True)
    assert "may hold 100.0 MiB (--worker-memory-bytes)" in end.text


async def test_a_library_that_aborts_for_lack_of_memory_is_told_apart(
    assignment: Assignment,
) -> None:
    program = "import os, sys; sys.stderr.write('LLVM ERROR: out of memory\\n'); sys.stderr.flush()"

    end = await end_of(await worker_of(f"{program}; os.abort()"), assignment)

    assert (end.reason, end.is_final) == ("OUT_OF_MEMORY", True)
    assert "killed by signal 6; its log ends: LLVM ERROR: out of memory" in end.text


async def test_a_worker_that_is_killed_within_its_limit_is_lost(assignment: Assignment) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"

    end = await end_of(await worker_of(program), replace(assignment, memory_bytes=1 << 40))

    assert (end.reason, end.is_final) == ("WORKER_LOST", False)


@pytest.mark.system
async def test_a_worker_is_what_the_kernel_kills_first() -> None:
    worker = await LocalWorker.spawn(niceness=0)
    await worker.wait_ready()

    with open(f"/proc/{worker.pid}/oom_score_adj") as file:  # noqa: ASYNC230, PTH123
        assert int(file.read()) == 500
    assert process_memory(worker.pid)["VmRSS"] < LEAST_WORKER_MEMORY
    await worker.kill()
