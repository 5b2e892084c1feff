"""The use cases of models: find a checkpoint, list what is trained."""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from leadline.models.export import load_onnx
from leadline.server.jobs.job import Job, Model
from leadline.server.jobs.variants import VariantFilter
from leadline.server.services.large_reads import ReadLane, in_slices
from leadline.server.serving.catalog import ByName, Catalog, CheckpointRef, Selector
from leadline.server.storage.models import ModelName
from leadline.server.storage.store import Store
from leadline.server.thread_pool import ThreadPool

R = TypeVar("R")

# Models that a listing reads at a time, with up to 10,000 epochs each.
_MODELS_A_SLICE = 10


class ModelService:
    """The use cases of models."""

    def __init__(
        self, *, store: Store, threads: ThreadPool, large_reads: ReadLane, catalog: Catalog
    ) -> None:
        self._store = store
        self._threads = threads
        self._large_reads = large_reads
        self._catalog = catalog

    async def get(self, job_id: str, use: Callable[[Model], R]) -> R:
        """What a job has trained, as `use` makes it in a thread.

        Raises:
            NotFoundError: there is no such job, or it has completed no epoch.
        """
        return await self._threads.run(lambda: use(self._store.models.get(job_id)))

    async def get_with_job(self, job_id: str) -> tuple[Job, Model | None]:
        """A job and what it has trained, None before its first epoch.

        Raises:
            NotFoundError: there is no such job.
        """
        return await self._threads.run(self._get_with_job, job_id)

    async def list_models(
        self,
        use: Callable[[Iterable[Model]], R],
        variant: VariantFilter,
        *,
        before: int | None,
        limit: int,
        caller: str,
    ) -> R:
        """Models of matching variants, whose jobs are numbered below `before`, newest first.

        Args:
            use: makes the result of the models, in a thread; they are read as it takes them.
            variant: which models.
            before: the number below which their jobs are; None: no bound.
            limit: how many models `use` takes at most.
            caller: callers take turns, by this name.

        Raises:
            ResourceExhaustedError: too many large reads wait.
        """
        models = in_slices(
            partial(self._store.models.find, variant),
            lambda model: model.job.number,
            before=before,
            size=min(limit, _MODELS_A_SLICE),
        )
        return await self._large_reads.run(caller, use, models)

    async def list_names(
        self, use: Callable[[Sequence[ModelName], Sequence[Job]], R], *, limit: int, caller: str
    ) -> R:
        """The names of the newest models, and the job with the best model of each variant.

        Args:
            use: makes the result of them, in a thread.
            limit: the most models.
            caller: callers take turns, by this name.

        Raises:
            ResourceExhaustedError: too many large reads wait.
        """

        def read() -> R:
            names = self._store.models.find_names(limit=limit)
            return use(names, self._store.models.find_best_of_variants())

        return await self._large_reads.run(caller, read)

    def resolve(self, selector: Selector) -> Coroutine[Any, Any, CheckpointRef]:
        """The checkpoint that a selector currently stands for.

        Raises:
            NotFoundError: no such model, epoch or variant is trained.
        """
        return self._catalog.resolve(selector)  # not awaited: every prediction passes here

    async def resolve_all(self, selectors: Iterable[Selector]) -> list[CheckpointRef]:
        """The checkpoints that selectors currently stand for; raises as `resolve` does."""
        return [await self._catalog.resolve(selector) for selector in selectors]

    async def export(self, checkpoint: CheckpointRef, *, caller: str) -> bytes:
        """The network of a checkpoint as an ONNX model.

        Args:
            checkpoint: the checkpoint.
            caller: callers take turns, by this name.

        Raises:
            DataLossError: the checkpoint is missing or damaged.
            ResourceExhaustedError: too many large reads wait.
        """

        def make() -> bytes:
            with checkpoint.reading():
                return load_onnx(checkpoint.folder, checkpoint.epoch.epoch)

        return await self._large_reads.run(caller, make)

    async def best_of_variants(
        self, dataset: str, *, max_accuracy_gap: float, caller: str
    ) -> list[CheckpointRef]:
        """The best checkpoints of the variants trained on a dataset, the most accurate first.

        Args:
            dataset: a dataset's name.
            max_accuracy_gap: how much less accurate than the best one they are at most.
            caller: callers take turns, by this name.

        Raises:
            ResourceExhaustedError: too many large reads wait.
        """
        jobs = await self._large_reads.run(
            caller, self._store.models.find_best_of_variants, dataset
        )
        return [
            await self._catalog.resolve(ByName(job_id=job.job_id))
            for job in jobs
            if job.best_test_accuracy >= jobs[0].best_test_accuracy - max_accuracy_gap
        ]

    def _get_with_job(self, job_id: str) -> tuple[Job, Model | None]:
        job = self._store.jobs.get(job_id)
        return job, self._store.models.get(job_id) if job.completed_epochs else None
