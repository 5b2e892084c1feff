"""Workers that are stopped until they count as lost: their later reports must not count."""

import contextlib
import signal

import psutil

from faults.jobs import comparable, reference, replay, specs
from faults.servers import Server, wait_until
from faults.setting import IMPATIENT, PATIENT, Figure, Setting, all_of, none_of
from leadline.client import Client
from leadline.v1.job_pb2 import Job
from leadline.v1.training_spec_pb2 import TrainingSpec


def stop_workers(setting: Setting) -> list[Figure]:
    """Stops the active worker until it counts as lost or the server is killed, then continues
    it."""
    kinds, count = specs(setting.scale), 0
    survivors: list[str] = []
    jobs: dict[str, int] = {}
    with setting.serving(PATIENT, IMPATIENT) as server:
        with Client(server.target, reconnect_timeout=None) as client:
            for number in range(setting.scale.silences):
                if not setting.has_time:
                    break
                job = _unfinished_job(client, kinds, jobs)
                if worker := _stop_one(server, client, job, kill_server=number % 2 == 1):
                    survivors.append(f"worker {worker.pid} lives on")
                count += 1
                setting.say(f"{count} of {setting.scale.silences} workers stopped")
            for job in jobs:
                client.job(job).result()
        other = [
            job
            for job, kind in jobs.items()
            if comparable(replay(server.target, job)) != reference(server.target, kinds[kind])
        ]
    return [
        none_of(
            "zombie workers (stopped until the server gave them up or was killed, then continued) "
            "that were still there",
            survivors,
            count,
        ),
        all_of(
            "the same: jobs whose events and weights equal the uninterrupted run's",
            other,
            len(jobs),
        ),
    ]


def _unfinished_job(client: Client, kinds: list[TrainingSpec], jobs: dict[str, int]) -> str:
    """Returns the current job, or a new one."""
    for job in jobs:
        if not client.get_job(job).HasField("end_time"):
            return job
    kind = len(jobs) % len(kinds)
    handle = client.train(kinds[kind])
    handle.detach()
    jobs[handle.name] = kind
    return handle.name


def _stop_one(
    server: Server, client: Client, job: str, *, kill_server: bool
) -> psutil.Process | None:
    """Stops the job's worker until it counts as lost; returns it if it still exists."""
    before = client.get_job(job)
    wait_until(lambda: _has_moved_on(client.get_job(job), before), "the job had another epoch")
    now = client.get_job(job)
    if now.HasField("end_time"):
        return None
    worker = server.workers()[0]
    worker.send_signal(signal.SIGSTOP)
    if kill_server:
        server.kill()
        server.start()
    else:
        wait_until(lambda: client.get_job(job).attempts > now.attempts, "it was given up")
    with contextlib.suppress(psutil.NoSuchProcess):
        worker.send_signal(signal.SIGCONT)
    _, alive = psutil.wait_procs([worker], timeout=5)
    return worker if alive else None


def _has_moved_on(now: Job, before: Job) -> bool:
    return now.HasField("end_time") or now.completed_epochs > before.completed_epochs
