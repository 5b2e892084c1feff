"""Decides when a job whose worker was lost is requeued, and when it fails."""

from leadline.server.jobs.job import Failure, Job
from leadline.server.workers.local import WorkerEnd

_RETRY_SECONDS = 1.0


class LossPolicy:
    """Counts the workers that each job loses in one epoch."""

    def __init__(self, *, max_attempts: int, silence_limit: float) -> None:
        """Makes a policy.

        Args:
            max_attempts: workers that a job may lose in one epoch before it fails.
            silence_limit: seconds without a message after which a worker is lost.
        """
        self.silence_limit = silence_limit
        self._max_attempts = max_attempts
        # By job: the number of its completed epochs, and of the workers lost since.
        self._losses: dict[str, tuple[int, int]] = {}

    def record_loss(self, job: Job, end: WorkerEnd) -> float | Failure:
        """Counts another lost worker.

        Args:
            job: the current state of the worker's job.
            end: how the worker ended.

        Returns:
            The seconds to wait before the job is requeued, or why it fails.
        """
        if end.is_final:
            return Failure(reason=end.reason, message=end.text)
        epochs, count = self._losses.get(job.job_id, (0, 0))
        count = count + 1 if epochs == job.completed_epochs else 1
        self._losses[job.job_id] = (job.completed_epochs, count)
        if count < self._max_attempts:
            return _RETRY_SECONDS if count > 1 else 0.0
        return Failure(
            reason=end.reason,
            message=f"{count} workers in a row were lost in epoch "
            f"{job.completed_epochs + 1}; the last {end}",
        )

    def forget(self, job_id: str) -> None:
        """Drops the count of a job whose last worker was not lost."""
        self._losses.pop(job_id, None)
