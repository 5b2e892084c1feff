"""The server's activity as the page shows it, and the difference between two moments."""

from collections.abc import Mapping
from typing import Any

from leadline.server.jobs.job import Job
from leadline.server.jobs.states import JobState
from leadline.server.live.cards import Card, by_id, job_card, model_card, sweep_card
from leadline.server.services.activity import Activity


class Overview:
    """The activity, and the cards of its jobs.

    Attributes:
        activity: the activity.
        cards: its jobs as the page shows them, by id, the newest first.
    """

    def __init__(self, activity: Activity) -> None:
        self.activity = activity
        self.cards: Mapping[str, Card] = by_id(job_card(job) for job in activity.jobs.values())

    @property
    def running(self) -> list[Job]:
        """The running jobs."""
        return [job for job in self.activity.jobs.values() if job.state is JobState.RUNNING]

    def to_dict(self) -> dict[str, Any]:
        """The overview as JSON values."""
        activity = self.activity
        return {
            "jobs": list(self.cards.values()),
            "order": list(self.cards),
            "queue": list(activity.queue),
            "counts": {state.value: count for state, count in activity.counts.items()},
            "models": [model_card(job) for job in activity.most_accurate],
            "sweeps": [sweep_card(sweep) for sweep in activity.sweeps],
            "hold": activity.hold.message if activity.hold else "",
        }

    def since(self, before: "Overview") -> dict[str, Any]:
        """The sections that changed; of the jobs, only the cards that changed."""
        now, then = self.to_dict(), before.to_dict()
        changed = {name: value for name, value in now.items() if value != then[name]}
        if "jobs" in changed:
            changed["jobs"] = [
                card for name, card in self.cards.items() if before.cards.get(name) != card
            ]
        return changed
