"""The rule that stops hopeless jobs of a sweep.

The median stopping rule of Golovin et al., "Google Vizier: A Service for
Black-Box Optimization" (KDD 2017), section 3.2.2. At a step, it takes the median of
the completed trials' average objectives up to that step. It stops a trial whose best
objective so far is strictly worse than this median.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from leadline.models.spec import Violation
from leadline.server.jobs.json_values import JsonValues

_GRACE_EPOCHS = (1, 10_000)
_COMPLETED_JOBS = (1, 1_000)


@dataclass(frozen=True, kw_only=True)
class MedianStopping(JsonValues):
    """The rule's settings.

    Attributes:
        grace_epochs: the first epochs, in which no job is stopped.
        min_completed_jobs: how many jobs must be completed before others are stopped.
    """

    grace_epochs: int = 5
    min_completed_jobs: int = 3

    def violations(self) -> list[Violation]:
        """The violations of the limits, field by field."""
        return [
            Violation(field=field, description=f"must be {least} to {most:,}, but is {value}")
            for field, value, (least, most) in (
                ("grace_epochs", self.grace_epochs, _GRACE_EPOCHS),
                ("min_completed_jobs", self.min_completed_jobs, _COMPLETED_JOBS),
            )
            if not least <= value <= most
        ]

    def bar(self, epoch: int, completed: Sequence[float]) -> float | None:
        """The best test accuracy that a job must reach by an epoch; None if it may continue anyway.

        Args:
            epoch: the job's last completed epoch, 1 for the first.
            completed: for each completed job, the mean test accuracy of its epochs up
                to this one, a fraction.
        """
        if epoch < self.grace_epochs or len(completed) < self.min_completed_jobs:
            return None
        return statistics.median(completed)
