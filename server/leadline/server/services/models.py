"""The use cases of models: find a checkpoint, list models."""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from leadline.models.export import load_onnx
from leadline.server.jobs.job import Job, Model
from leadline.server.jobs.variants import VariantFilter
from leadline.server.services.large_reads import ReadLane, in_slices
from leadline.server.serving.catalog import ByName, Catalog, CheckpointRef, Selector
from leadline.server.storage.models import ModelName
from leadline.server.storage.shared_reads import SharedReads
from leadline.server.storage.store import Store
from leadline.server.thread_pool import ThreadPool

R = TypeVar("R")

# How many models a listing reads at a time, with up to 10,000 epochs each.
_MODELS_A_SLICE = 10

# A model of up to this many epochs takes a few milliseconds to read: not a large read.
_FEW_EPOCHS = 200


class ModelService:
    """The use cases of models.

    Attributes:
        known: returns the checkpoint that a selector currently stands for, or None if that
            takes a query.
    """

    def __init__(
        self, *, store: Store, threads: ThreadPool, large_reads: ReadLane, catalog: Catalog
    ) -> None:
        self._store = store
        self._threads = threads
        self._large_reads = large_reads
        self._catalog = catalog
        self._shared_names = SharedReads(store, size=1)
        self.known = catalog.known

    async def get(self, use: Callable[[Model], R], job_id: str, *, caller: str) -> R:
        """Builds a result from a job's model, which has up to 10,000 epochs.

        Args:
            use: builds the result from the model, in a thread.
            job_id: the job.
            caller: identifies the caller; callers take turns.

        Raises:
            NotFoundError: there is no such job, or it has completed no epoch.
            ResourceExhaustedError: too many large reads wait.
        """

        def read() -> R:
            return use(self._store.models.get(job_id))

        def read_if_small() -> tuple[R] | None:
            is_small = self._store.models.count_epochs(job_id) <= _FEW_EPOCHS
            return (read(),) if is_small else None

        small = await self._threads.run(read_if_small)
        return small[0] if small else await self._large_reads.run(caller, read)

    async def get_with_job(
        self, use: Callable[[Job, Model | None], R], job_id: str, *, caller: str
    ) -> R:
        """As `get`, from a job and its model, which is None before the first epoch."""
        return await self._large_reads.run(caller, lambda: use(*self._get_with_job(job_id)))

    async def list_models(
        self,
        use: Callable[[Iterable[Model]], R],
        variant: VariantFilter,
        *,
        owner: str | None = None,
        before: int | None,
        limit: int,
        caller: str,
    ) -> R:
        """Lists the models of matching variants, the newest first.

        Args:
            use: builds the result from the models, in a thread; reads them lazily.
            variant: the filter.
            owner: only models of this owner; None for all.
            before: only models whose job has a lower number; None for no bound.
            limit: the most models that `use` takes.
            caller: identifies the caller; callers take turns.

        Raises:
            ResourceExhaustedError: too many large reads wait.
        """
        models = in_slices(
            partial(self._store.models.find, variant, owner=owner),
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
            use: builds the result, in a thread; callers with equal `use` and
                `limit` share the result.
            limit: the most models.
            caller: identifies the caller; callers take turns.

        Raises:
            ResourceExhaustedError: too many large reads wait.
        """

        def read() -> R:
            names = self._store.models.find_names(limit=limit)
            return use(names, self._store.models.find_best_of_variants())

        run = partial(self._large_reads.run, caller, read)
        return await self._shared_names.get((use, limit), run)

    def resolve(self, selector: Selector) -> Coroutine[Any, Any, CheckpointRef]:
        """The checkpoint that a selector currently stands for.

        Raises:
            NotFoundError: there is no such model, epoch or variant.
        """
        return self._catalog.resolve(selector)  # not awaited, to keep predictions fast

    async def resolve_all(self, selectors: Iterable[Selector]) -> list[CheckpointRef]:
        """The checkpoints that selectors currently stand for; raises the errors of `resolve`."""
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
            max_accuracy_gap: how much less accurate than the best one they may be.
            caller: identifies the caller; callers take turns.

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
