"""Workers that count as lost but still run: they must not change anything."""

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from faults.jobs import comparable, damage, open_store, reference, replay, specs
from faults.servers import Server, wait_until
from faults.setting import PATIENT, Figure, Setting, all_of, none_of
from faults.undead import Undead, assignment_of
from leadline.client import Client
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.store import Store
from leadline.server.workers.messages import Assignment
from leadline.v1.training_spec_pb2 import TrainingSpec

_ZOMBIES_AT_ONCE = 3

# The identity of an unchanged file: inode, modification time, size.
_Stamp = tuple[int, int, int]


@dataclass
class _Graveyard:
    """A server whose jobs lose their workers, and the actions of the lost workers."""

    server: Server
    store: Store
    chance: random.Random
    target: int
    say: Callable[[str], None]
    zombies: int = 0
    changes: list[str] = field(default_factory=list)

    @property
    def has_enough(self) -> bool:
        """Whether the target is reached."""
        return self.zombies >= self.target

    def haunt(self, job_id: str) -> None:
        """Kills the job's worker after one or two epochs, and starts its earlier workers again."""
        dead: list[Assignment] = []
        while not self.has_enough and self._wait_for_epoch(job_id):
            threading.Event().wait(self.chance.uniform(0, 0.2))
            dead.append(self._lose_worker(job_id))
            with self._watch_files(job_id):
                self._raise(dead[-_ZOMBIES_AT_ONCE:])
            self.say(f"{self.zombies} of {self.target} zombies")
        wait_until(lambda: self.store.jobs.get(job_id).state.is_final, "the job's end", seconds=300)

    def _wait_for_epoch(self, job_id: str) -> bool:
        """Waits for the next complete epoch; returns whether the job continues."""
        epochs = self.store.jobs.get(job_id).completed_epochs

        def has_moved_on() -> bool:
            job = self.store.jobs.get(job_id)
            return job.state.is_final or job.completed_epochs > epochs

        wait_until(has_moved_on, "an epoch was complete")
        return not self.store.jobs.get(job_id).state.is_final

    def _lose_worker(self, job_id: str) -> Assignment:
        """Kills the worker, and returns its assignment after another worker has the job."""
        attempt = self.store.jobs.get(job_id).attempts
        self.server.workers()[0].kill()  # the oldest; spare workers start later
        wait_until(lambda: self.store.jobs.get(job_id).attempts > attempt, "another had the job")
        job = replace(self.store.jobs.get(job_id), attempts=attempt)
        return assignment_of(self.store, job, self.server.data_dir)

    def _raise(self, dead: list[Assignment]) -> None:
        """Starts workers with these assignments, all at once."""
        pauses = [self.chance.uniform(0, 0.5) for _ in dead]
        with ThreadPoolExecutor(len(dead)) as threads:
            for accepted in threads.map(self._haunt_once, dead, pauses):
                self.changes += accepted
        self.zombies += len(dead)

    def _haunt_once(self, assignment: Assignment, pause: float) -> list[str]:
        zombie = Undead()
        try:
            return zombie.haunt(assignment, self.store, pause)
        finally:
            zombie.end()

    @contextlib.contextmanager
    def _watch_files(self, job_id: str) -> Iterator[None]:
        """Records which files that the store refers to have changed."""
        before = _stamps(self.server.data_dir, self.store, job_id)
        yield
        self.changes += [str(path) for path, stamp in before.items() if _stamp(path) != stamp]


def raise_zombies(setting: Setting) -> list[Figure]:
    """Lets workers of older attempts train beside the current one."""
    kinds, jobs, target = specs(setting.scale), dict[str, int](), setting.scale.zombies
    with setting.serving(PATIENT) as server, open_store(server.data_dir) as store:
        yard = _Graveyard(server, store, setting.random(), target, setting.say)
        while not yard.has_enough and setting.has_time:
            kind = len(jobs) % len(kinds)
            job = _submit(server, kinds[kind])
            jobs[job] = kind
            yard.haunt(job.removeprefix("jobs/"))
        setting.say("comparing with jobs that nothing interrupts")
        other = [
            job
            for job, kind in jobs.items()
            if comparable(replay(server.target, job)) != reference(server.target, kinds[kind])
        ]
        damaged = [what for job in jobs for what in damage(server.data_dir, job)]
    return [
        none_of(
            "zombie workers (of older attempts, stopped, continued, beside the current one) "
            "that changed anything: reports accepted, referred files touched or damaged",
            [*yard.changes, *damaged],
            yard.zombies,
        ),
        all_of(
            "the same: jobs whose events and weights equal the uninterrupted run's",
            other,
            len(jobs),
        ),
    ]


def _submit(server: Server, spec: TrainingSpec) -> str:
    with Client(server.target) as client:
        handle = client.train(spec)
        handle.detach()
    return handle.name


def _stamps(data_dir: Path, store: Store, job_id: str) -> dict[Path, _Stamp | None]:
    artifacts = Artifacts(data_dir / "models")
    return {
        path: _stamp(path)
        for epoch in store.models.get(job_id).epochs
        for path in [
            artifacts.folder(job_id, epoch.attempt) / f"epoch-{epoch.result.epoch:05}.checkpoint"
        ]
    }


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
