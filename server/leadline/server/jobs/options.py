"""The scheduling and the retention of a job, which do not affect its weights."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from leadline.models.spec import Violation
from leadline.server.jobs.json_values import JsonValues

_PRIORITIES = (-100, 100)
_TIME_LIMITS = (1.0, 366 * 86_400.0)
_MOST_EPOCHS = 10_000


class RetentionPolicy(StrEnum):
    """Which checkpoints are kept, besides the best and the newest."""

    ALL = "all"
    BEST_AND_LAST = "best_and_last"
    EVERY_NTH = "every_nth"


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Which of a job's checkpoints are kept.

    Attributes:
        policy: which checkpoints are kept, besides the best and the newest.
        every_nth: the n of RetentionPolicy.EVERY_NTH; 0 for other policies.
    """

    policy: RetentionPolicy = RetentionPolicy.ALL
    every_nth: int = 0

    def dropped(self, kept: Iterable[int], *, best: int, is_final: bool) -> list[int]:
        """The epochs among `kept` whose checkpoints may be removed.

        An unfinished job also keeps the second newest: if the newest checkpoint is
        damaged, the job resumes from it.
        """
        epochs = sorted(kept)
        needed = {best, *epochs[-1 if is_final else -2 :]}
        match self.policy:
            case RetentionPolicy.ALL:
                return []
            case RetentionPolicy.BEST_AND_LAST:
                return [epoch for epoch in epochs if epoch not in needed]
            case RetentionPolicy.EVERY_NTH:
                return [epoch for epoch in epochs if epoch not in needed and epoch % self.every_nth]


@dataclass(frozen=True, kw_only=True)
class JobOptions(JsonValues):
    """The scheduling and the retention of a job.

    Attributes:
        priority: the queued job with the highest priority starts first.
        time_limit: seconds from acceptance until the job fails; None for no limit.
        retention: which checkpoints are kept.
    """

    priority: int = 0
    time_limit: float | None = None
    retention: Retention = Retention()

    def violations(self) -> list[Violation]:
        """The violations of the limits, field by field."""
        violations = []
        least, most = _PRIORITIES
        if not least <= self.priority <= most:
            violations.append(
                Violation(
                    field="priority",
                    description=f"must be {least} to {most}, but is {self.priority}",
                )
            )
        shortest, longest = _TIME_LIMITS
        if self.time_limit is not None and not shortest <= self.time_limit <= longest:
            violations.append(
                Violation(
                    field="time_limit",
                    description=f"must be 1 second to 366 days, but is {self.time_limit} s",
                )
            )
        return violations + self._retention_violations()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The options that `to_dict` wrote."""
        retention = values["retention"]
        policy = RetentionPolicy(retention["policy"])
        return cls(
            **{**values, "retention": Retention(policy=policy, every_nth=retention["every_nth"])}
        )

    def _retention_violations(self) -> list[Violation]:
        nth = self.retention.every_nth
        is_nth = self.retention.policy is RetentionPolicy.EVERY_NTH
        if is_nth and not 1 <= nth <= _MOST_EPOCHS:
            text = f"must be 1 to {_MOST_EPOCHS:,}, but is {nth}"
        elif not is_nth and nth:
            text = f"must be 0 unless the policy is every nth, but is {nth}"
        else:
            return []
        return [Violation(field="retention.every_nth", description=text)]
