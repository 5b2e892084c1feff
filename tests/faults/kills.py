"""SIGKILL of workers, the server, or both, at random moments: no acknowledged job may be lost."""

import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from faults.crowd import Crowd, Followed
from faults.jobs import comparable, damage, reference, replay, specs
from faults.servers import Server
from faults.setting import PATIENT, Figure, Setting, all_of, none_of
from leadline.client import Client
from leadline.v1.job_pb2 import JobEvent

_LAST_JOBS_SECONDS = 240.0


@dataclass
class _Killer:
    """Kills processes at random, and counts the kills."""

    server: Server
    random: random.Random

    def __post_init__(self) -> None:
        self.count: Counter[str] = Counter()

    def kill_some(self) -> None:
        """Waits until a job trains, and kills one to three times."""
        _wait_for_checkpoint(self.server.data_dir / "models", seconds=15)
        for _ in range(self.random.choices([1, 2, 3], [5, 3, 2])[0]):
            self._kill()

    def _kill(self) -> None:
        """Waits for a random moment, kills, and restarts the server if it was killed."""
        victim = self._next_victim()
        self._wait()
        if victim != "server":
            self._kill_worker()
        if victim != "worker":
            self.server.kill()
            self._start_again()
        self.count[victim] += 1

    def _next_victim(self) -> str:
        """Returns each victim once, then random ones; a restart of the server takes long."""
        for victim in ("both", "worker", "server"):
            if not self.count[victim]:
                return victim
        return self.random.choices(["worker", "server", "both"], [6, 2, 2])[0]

    def _wait(self) -> None:
        match self.random.choices(["at once", "later", "while writing"], [2, 6, 2])[0]:
            case "later":
                time.sleep(self.random.uniform(0, 0.5))
            case "while writing":
                _wait_for_half_a_checkpoint(self.server.data_dir / "models", seconds=0.5)

    def _kill_worker(self) -> None:
        workers = self.server.workers()
        if workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.random.choice(workers).kill()

    def _start_again(self) -> None:
        while self.random.random() < 0.2:
            self.server.spawn()
            time.sleep(self.random.uniform(0, 2.5))
            self.server.kill()
            self.count["starting server"] += 1
        self.server.start()


def _wait_for_checkpoint(models: Path, *, seconds: float) -> None:
    """Waits until a worker has written another checkpoint, up to a time limit."""
    deadline, before = time.monotonic() + seconds, set(models.glob("*/*/epoch-*.checkpoint"))
    while time.monotonic() < deadline and before.issuperset(models.glob("*/*/epoch-*.checkpoint")):
        time.sleep(0.01)


def _wait_for_half_a_checkpoint(models: Path, *, seconds: float) -> None:
    """Waits until a worker is writing a checkpoint, up to a time limit."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if any(models.glob("*/*/.epoch-*")):
            return
        time.sleep(0.001)


def kill_at_random(setting: Setting) -> list[Figure]:
    """Kills while jobs are submitted, wait and run, then checks the result of each."""
    at_once, chance = setting.scale.jobs_at_once, setting.random()
    flags = (f"--jobs-per-device={at_once}", f"--spare-workers={at_once}", PATIENT)
    with setting.serving(*flags) as server:
        setting.say("training without interruptions, to compare with")
        kinds = specs(setting.scale)
        references = [reference(server.target, spec) for spec in kinds]
        earlier, killer = _jobs(server), _Killer(server, chance)
        crowd = Crowd(server.target, kinds, chance)
        try:
            while (kills := killer.count.total()) < setting.scale.kills and setting.has_time:
                crowd.top_up(2 * at_once)  # as many wait as run
                setting.say(
                    f"{kills} of {setting.scale.kills} kills, {len(crowd.followed)} jobs, "
                    f"{len(crowd.unfinished)} unfinished"
                )
                killer.kill_some()
            setting.say("waiting for the last jobs")
            crowd.wait(_LAST_JOBS_SECONDS)
            strangers = _jobs(server) - earlier - {follower.job for follower in crowd.followed}
            return [
                *_judge_jobs(server, crowd.followed, references, killer.count),
                none_of(
                    "the same: submissions that created a second job",
                    sorted(strangers),
                    len(crowd.followed),
                ),
                none_of(
                    "the same: workers that outlived their server",
                    server.survivors,
                    killer.count.total() - killer.count["worker"],
                ),
            ]
        finally:
            crowd.close()


def _jobs(server: Server) -> set[str]:
    with Client(server.target) as client:
        return {job.name for job in client.jobs()}


def _judge_jobs(
    server: Server,
    followed: list[Followed],
    references: list[list[JobEvent]],
    count: Counter[str],
) -> list[Figure]:
    hits = ", ".join(f"{number} {what}" for what, number in sorted(count.items()))
    lost = [
        follower.error or follower.job or "a submission"
        for follower in followed
        if not follower.has_succeeded
    ]
    complete = [follower for follower in followed if follower.has_succeeded]
    other = [
        follower.job
        for follower in complete
        if not _is_as_uninterrupted(server, follower, references)
    ]
    damaged = [what for follower in complete for what in damage(server.data_dir, follower.job)]
    return [
        none_of(f"SIGKILL ({hits}): acknowledged jobs lost or stuck", lost, count.total()),
        all_of(
            "the same: jobs whose events and weights, as watched and as replayed afterwards, equal "
            "the uninterrupted run's",
            other,
            len(complete),
        ),
        none_of(
            "the same: reported epochs whose files are missing or damaged",
            damaged,
            sum(follower.spec.epochs for follower in complete),
        ),
    ]


def _is_as_uninterrupted(
    server: Server, follower: Followed, references: list[list[JobEvent]]
) -> bool:
    replayed = replay(server.target, follower.job)
    return replayed == follower.events and comparable(replayed) == references[follower.kind]
