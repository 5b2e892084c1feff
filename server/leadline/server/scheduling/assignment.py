"""Makes the assignments of workers: a job, from its start or from its latest checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from leadline.models.datasets import DatasetError
from leadline.server.jobs.job import Job, Model
from leadline.server.scheduling.capacity import Capacity
from leadline.server.storage.artifacts import Artifacts
from leadline.server.workers.memory import worker_limit
from leadline.server.workers.messages import Assignment


@dataclass(frozen=True, kw_only=True)
class AssignmentMaker:
    """Makes assignments for workers.

    Attributes:
        artifacts: the folders of checkpoints.
        dataset_sources: every dataset's source, by name.
        dataset_cache: the folder of decoded datasets.
        fingerprints: the fingerprints of the datasets in the cache, by name.
        capacity: how many jobs share a device, and the CPU's threads and memory.
        cpu_threads: computing threads on the CPU of a job outside sweeps.
        max_image_pixels: the most pixels of an image to decode.
        worker_memory: the memory limit of a worker in bytes; "auto" for its share.
    """

    artifacts: Artifacts
    dataset_sources: Mapping[str, str]
    dataset_cache: Path
    fingerprints: Mapping[str, str]
    capacity: Capacity
    cpu_threads: int
    max_image_pixels: int
    worker_memory: int | Literal["auto"]

    def make(self, job: Job, model: Model | None, device: str) -> Assignment:
        """The assignment of a claimed job.

        Args:
            job: the job, with the attempt of the worker.
            model: the completed epochs; None before the first.
            device: such as "cuda:0" or "cpu".

        Raises:
            DatasetError: the server no longer knows the job's dataset.
        """
        dataset = job.spec.dataset
        if dataset not in self.dataset_sources:
            raise DatasetError(
                f"this server no longer knows the dataset {dataset!r}: "
                "start it with --dataset for it, and submit the job again"
            )
        epochs = model.epochs if model else ()
        fingerprint = self.fingerprints.get(dataset, "")
        return Assignment(
            job_id=job.job_id,
            attempt=job.attempts,
            spec=job.spec,
            completed_epochs=job.completed_epochs,
            resume_from=tuple(
                (epoch.result.epoch, str(self.artifacts.folder(job.job_id, epoch.attempt)))
                for epoch in reversed(epochs)
                if epoch.is_kept
            ),
            test_accuracies=tuple(epoch.result.test_accuracy for epoch in epochs),
            device=device,
            threads=self._threads(job, device),
            dataset_source=self.dataset_sources[dataset],
            dataset_cache=str(self.dataset_cache),
            dataset_fingerprint=model.started.dataset_fingerprint if model else fingerprint,
            checkpoint_folder=str(self.artifacts.folder(job.job_id, job.attempts)),
            max_image_pixels=self.max_image_pixels,
            memory_bytes=worker_limit(
                self.worker_memory,
                self.capacity.share(device, in_sweep=job.sweep_id is not None),
                device,
            ),
        )

    def _threads(self, job: Job, device: str) -> int:
        # A resumed job keeps its number of threads, even if the settings have
        # changed: another number would change the order of sums, and so the weights.
        if job.environment:
            return job.environment.threads
        share = 1 if job.sweep_id is None else self.capacity.devices[device].sweep_jobs
        return max(1, self.cpu_threads // share)
