"""What the whole server does, at one moment, and in what two moments differ."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leadline.server.jobs.job import Job
from leadline.server.jobs.states import JobState
from leadline.server.live.cards import Card, by_id, job_card, model_card, sweep_card
from leadline.server.storage.store import Store

# What a page has room for; the command line lists the rest.
NEWEST_JOBS = 100
WAITING_JOBS = 100
BEST_MODELS = 20
NEWEST_SWEEPS = 20


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What the page shows of everything.

    Attributes:
        jobs: the newest jobs, and all that run or wait in the shown queue, by id.
        running: those that run.
        cards: these jobs as they are shown, the newest first.
        queue: the ids of waiting jobs, in the order in which they will start.
        counts: how many jobs there are in each state, whether they are shown or not.
        models: the most accurate models.
        sweeps: the newest sweeps.
    """

    jobs: Mapping[str, Job] = field(default_factory=dict)
    cards: Mapping[str, Card] = field(default_factory=dict)
    queue: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    models: tuple[Card, ...] = ()
    sweeps: tuple[Card, ...] = ()

    @property
    def running(self) -> list[Job]:
        """The jobs that run."""
        return [job for job in self.jobs.values() if job.state is JobState.RUNNING]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "jobs": list(self.cards.values()),
            "order": list(self.cards),
            "queue": list(self.queue),
            "counts": dict(self.counts),
            "models": list(self.models),
            "sweeps": list(self.sweeps),
        }

    def since(self, before: "Overview") -> dict[str, Any]:
        """What is not as it was: whole sections, but of the jobs only those that changed."""
        now, then = self.to_dict(), before.to_dict()
        changed = {name: value for name, value in now.items() if value != then[name]}
        if "jobs" in changed:
            changed["jobs"] = [
                card for name, card in self.cards.items() if before.cards.get(name) != card
            ]
        return changed


def read_overview(store: Store) -> Overview:
    """Asks the store. Blocks.

    Raises:
        StorageError: the database cannot be read.
    """
    running = store.jobs.find(states=[JobState.RUNNING])
    waiting = store.jobs.find_queued(limit=WAITING_JOBS)
    newest = store.jobs.find(limit=NEWEST_JOBS)
    jobs = {job.job_id: job for job in (*running, *waiting, *newest)}
    accurate = store.models.find_most_accurate_jobs(limit=BEST_MODELS)
    ordered = sorted(jobs.values(), key=lambda job: -job.number)
    return Overview(
        jobs=jobs,
        cards=by_id(job_card(job) for job in ordered),
        queue=tuple(job.job_id for job in waiting),
        counts={state.value: count for state, count in store.jobs.count_by_state().items()},
        models=tuple(model_card(job) for job in accurate),
        sweeps=tuple(sweep_card(sweep) for sweep in store.sweeps.find(limit=NEWEST_SWEEPS)),
    )
