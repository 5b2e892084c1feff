"""Limits on the memory and the disk that jobs can use, with real servers."""

import contextlib
import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from client.cli_outcome import SCRIPT
from leadline.client import Client, HealthStatus, JobFailedError, SweepFailedError
from leadline.models.images import encode_png
from leadline.server.memory import process_memory
from leadline.v1.job_pb2 import JOB_STATE_QUEUED, JOB_STATE_SUCCEEDED
from support.datasets import specs_of
from support.servers import LiveServer, ServerFactory

tiny_spec = specs_of(__file__)

LIMIT = 1 << 30

# With 400 images: about 500 MB of activations, in addition to an idle worker's memory.
LARGE = {
    "blocks": 64,
    "block_convolutions": 2,
    "batch_norm": True,
    "batch_size": 65_536,
    "learning_rate": 1e-6,
}

IMAGE = encode_png(np.zeros((32, 32, 3), dtype=np.uint8))

MORE_THAN_THERE_IS = 10**15


def workers(server: LiveServer) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children()


@contextmanager
def peaks_of(server: LiveServer) -> Iterator[dict[int, int]]:
    """Records the peak memory of each worker of a server, in bytes by process id."""
    peaks: dict[int, int] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            for worker in workers(server):
                with contextlib.suppress(OSError, KeyError):  # it has ended
                    held = process_memory(worker.pid)["VmRSS"]
                    peaks[worker.pid] = max(peaks.get(worker.pid, 0), held)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def until(what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def half_written(server: LiveServer) -> list[Path]:
    return list(server.data_dir.glob("models/*/*/.epoch-*"))


def test_a_job_beyond_the_memory_limit_fails_at_once_and_harms_no_other(
    server_factory: ServerFactory,
) -> None:
    server = server_factory(f"--worker-memory-bytes={LIMIT}", "--jobs-per-device=2")
    with Client(server.target) as client, peaks_of(server) as peaks:
        other = client.train(tiny_spec(epochs=10_000))
        until(lambda: other.refresh().completed_epochs)
        pid_of_other = max(workers(server), key=lambda worker: worker.cpu_times().user).pid
        with pytest.raises(JobFailedError) as failed:
            client.train(tiny_spec(**LARGE)).result()
        epochs = other.refresh().completed_epochs
        until(lambda: other.refresh().completed_epochs > epochs)
        assert client.health() is HealthStatus.SERVING
        assert pid_of_other in {worker.pid for worker in workers(server)}
        other.cancel()

    job = failed.value.job
    assert (failed.value.reason, job.attempts) == ("OUT_OF_MEMORY", 1)
    for words in ("1.0 GiB (--worker-memory-bytes)", "you tried to allocate", "smaller batch_size"):
        assert words in job.failure.message
    assert len(peaks) >= 2
    assert max(peaks.values()) <= LIMIT
    assert half_written(server) == []


def test_a_sweep_goes_on_without_the_job_that_is_too_large(server_factory: ServerFactory) -> None:
    server = server_factory(f"--worker-memory-bytes={LIMIT}")
    with Client(server.target) as client:
        spec = tiny_spec(**LARGE, epochs=1)
        with pytest.raises(SweepFailedError) as failed:
            client.train_sweep({"blocks": [64, 0]}, spec).result()
        large, small = (client.get_job(job.job) for job in failed.value.sweep.jobs)

    assert (large.failure.reason, large.attempts) == ("OUT_OF_MEMORY", 1)
    assert small.state == JOB_STATE_SUCCEEDED


def test_memory_that_runs_out_after_an_epoch_costs_none(server_factory: ServerFactory) -> None:
    server = server_factory("--spare-workers=0", "--worker-memory-bytes=0")
    with Client(server.target) as client:
        job = client.train(tiny_spec(**LARGE, epochs=50))
        until(lambda: job.refresh().completed_epochs)
        job.detach()
    server.stop(signal.SIGKILL)

    limited = server_factory("--spare-workers=0", f"--worker-memory-bytes={LIMIT}")
    with Client(limited.target) as client:
        with pytest.raises(JobFailedError) as failed:
            client.job(job.name).result()
        now = failed.value.job
        assert (failed.value.reason, now.attempts) == ("OUT_OF_MEMORY", 2)
        for epoch in range(1, now.completed_epochs + 1):
            assert len(client.predict(IMAGE, model=f"{job.model}/epochs/{epoch}")) == 1
    attempt = limited.data_dir / "models" / job.id / "attempt-002"
    assert list(attempt.glob("*")) == []


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group of version 1 with a limit of 0.7 GB."""
    group = Path("/sys/fs/cgroup/memory/leadline-test-of-limits")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(700 << 20))
    except OSError:
        pytest.skip("this machine lets nobody make control groups of version 1")
    yield group
    until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def test_a_kill_by_the_kernel_for_lack_of_memory_is_named(
    server_factory: ServerFactory, small_group: Path
) -> None:
    enter = ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(small_group))
    server = server_factory(
        *("--worker-memory-bytes=0", "--max-attempts=2", "--spare-workers=0"), wrapper=enter
    )
    with Client(server.target) as client:
        with pytest.raises(JobFailedError) as failed:
            client.train(tiny_spec(**LARGE)).result()
        assert client.health() is HealthStatus.SERVING
    server.stop()

    assert (failed.value.reason, failed.value.job.attempts) == ("OUT_OF_MEMORY", 2)
    assert "was killed by the kernel" in failed.value.job.failure.message


def test_no_job_starts_on_a_disk_below_its_floor_and_all_are_told(
    server_factory: ServerFactory,
) -> None:
    server = server_factory("--spare-workers=0", f"--min-free-disk-bytes={MORE_THAN_THERE_IS}")
    with Client(server.target) as client:
        job = client.train(tiny_spec(epochs=1), progress_interval=0.05)
        until(lambda: job.refresh().HasField("hold"))
        held = job.refresh()
        progress = next(event for event in job.events() if event.progress.HasField("hold"))
        job.detach()
        text = urllib.request.urlopen(server.metrics_url, timeout=10).read().decode()  # noqa: S310

        assert (held.state, held.hold.reason) == (JOB_STATE_QUEUED, "LOW_DISK_SPACE")
        assert held.hold.message.startswith("the disk of the data directory has ")
        assert "(--min-free-disk-bytes)" in held.hold.message
        assert progress.progress.hold.reason == "LOW_DISK_SPACE"
        assert [listed.hold.reason for listed in client.jobs()] == ["LOW_DISK_SPACE"]
        assert "leadline_queue_held 1.0" in text
        table = [*SCRIPT, "jobs", "--target", server.target]
        printed = subprocess.run(table, capture_output=True, text=True, check=True, timeout=60)
        assert " queued (low_disk_space) " in printed.stdout
        assert held.hold.message.partition(" has ")[0] in printed.stdout
        assert re.search(r"^leadline_disk_free_bytes [1-9]", text, re.MULTILINE)
        assert workers(server) == []
    assert server.log.read_text().count("jobs are held") == 1
    server.stop()

    with Client(server_factory("--min-free-disk-bytes=0").target) as client:
        done = client.job(job.name).result()
        assert done.state == JOB_STATE_SUCCEEDED
        assert not done.HasField("hold")
