"""The use cases of models: find a checkpoint, list what is trained."""

from collections.abc import Coroutine, Iterable
from typing import Any

from leadline.server.jobs.job import Job, Model
from leadline.server.jobs.variants import VariantFilter
from leadline.server.serving.catalog import Catalog, CheckpointRef, Selector
from leadline.server.storage.store import Store
from leadline.server.thread_pool import ThreadPool


class ModelService:
    """The use cases of models."""

    def __init__(self, *, store: Store, threads: ThreadPool, catalog: Catalog) -> None:
        self._store = store
        self._threads = threads
        self._catalog = catalog

    async def get(self, job_id: str) -> Model:
        """What a job has trained.

        Raises:
            NotFoundError: there is no such job, or it has completed no epoch.
        """
        return await self._threads.run(self._store.models.get, job_id)

    async def get_with_job(self, job_id: str) -> tuple[Job, Model | None]:
        """A job and what it has trained, None before its first epoch.

        Raises:
            NotFoundError: there is no such job.
        """
        return await self._threads.run(self._get_with_job, job_id)

    async def list_models(
        self, variant: VariantFilter, *, before: int | None = None, limit: int | None = None
    ) -> list[Model]:
        """Models of matching variants, whose jobs are numbered below `before`, newest first."""
        return await self._threads.run(self._store.models.find, variant, before=before, limit=limit)

    def resolve(self, selector: Selector) -> Coroutine[Any, Any, CheckpointRef]:
        """The checkpoint that a selector currently stands for.

        Raises:
            NotFoundError: no such model, epoch or variant is trained.
        """
        return self._catalog.resolve(selector)  # not awaited: every prediction passes here

    async def resolve_all(self, selectors: Iterable[Selector]) -> list[CheckpointRef]:
        """The checkpoints that selectors currently stand for; raises as `resolve` does."""
        return [await self._catalog.resolve(selector) for selector in selectors]

    async def best_of_variants(self, dataset: str) -> list[CheckpointRef]:
        """The best checkpoint of each variant trained on a dataset, the most accurate first."""
        return await self._catalog.best_of_variants(dataset)

    def _get_with_job(self, job_id: str) -> tuple[Job, Model | None]:
        job = self._store.jobs.get(job_id)
        return job, self._store.models.get(job_id) if job.completed_epochs else None
