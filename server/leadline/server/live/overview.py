"""The server's activity as JSON values for the page, and the difference of two overviews."""

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
        cards: the jobs' cards by id, the newest first.
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
        """The changed sections; the section of jobs has only the changed cards."""
        now, then = self.to_dict(), before.to_dict()
        changed = {name: value for name, value in now.items() if value != then[name]}
        if "jobs" in changed:
            changed["jobs"] = [
                card for name, card in self.cards.items() if before.cards.get(name) != card
            ]
        return changed
