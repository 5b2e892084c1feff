"""Resolves names and variants to checkpoints."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import structlog

from leadline.models.checkpoint_files import CheckpointError
from leadline.server.errors import DataLossError, NotFoundError
from leadline.server.jobs.job import EpochCompleted, Model
from leadline.server.jobs.variants import VariantFilter
from leadline.server.storage.artifacts import Artifacts
from leadline.server.storage.shared_reads import SharedReads
from leadline.server.storage.store import Store
from leadline.server.thread_pool import ThreadPool

_LOG = structlog.get_logger(__name__)

# The size of the cache, which is valid until the next write to the store.
_MOST_KNOWN = 4_096

# The most queries in flight that callers share.
_MOST_FINDS = 64


@dataclass(frozen=True, kw_only=True)
class ByName:
    """Selects a model's epoch; None for the best epoch."""

    job_id: str
    epoch: int | None = None


Selector = ByName | VariantFilter


@dataclass(frozen=True, kw_only=True)
class CheckpointRef:
    """One epoch of a model, and the folder of its files."""

    model: Model
    epoch: EpochCompleted
    folder: Path

    @cached_property
    def name(self) -> str:
        """The resource name, "models/{job_id}/epochs/{epoch}"."""
        return f"models/{self.model.job.job_id}/epochs/{self.epoch.epoch}"

    @cached_property
    def key(self) -> tuple[str, str]:
        """The name and the hash of the weights: a resumed job may write an epoch again."""
        return self.name, self.epoch.weights_sha256

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Converts errors while the block reads the checkpoint's files.

        Raises:
            DataLossError: a file is missing or damaged.
        """
        try:
            yield
        except CheckpointError as error:
            # Only the operator may see paths.
            _LOG.error("a checkpoint cannot be read", model=self.name, why=str(error))
            raise DataLossError(
                f"the files of {self.name} are missing or damaged: "
                "use another epoch, or train again",
                reason="CHECKPOINT_DAMAGED",
                metadata={"model": self.name},
            ) from error


class Catalog:
    """Finds checkpoints by name or by variant."""

    def __init__(self, *, store: Store, threads: ThreadPool, artifacts: Artifacts) -> None:
        self._store = store
        self._threads = threads
        self._artifacts = artifacts
        self._known: dict[Selector, CheckpointRef] = {}
        self._known_revision = -1
        # After a write, many predictions resolve the same model at once.
        self._finds = SharedReads(store, size=_MOST_FINDS)

    async def resolve(self, selector: Selector) -> CheckpointRef:
        """The checkpoint that a selector currently stands for.

        The catalog caches the result, and queries the store again only after a
        write.

        Raises:
            NotFoundError: there is no such model, epoch or variant.
        """
        revision = self._store.revision
        if revision != self._known_revision or len(self._known) >= _MOST_KNOWN:
            self._known.clear()
            self._known_revision = revision
        known = self._known.get(selector)
        if known is None:
            known = await self._finds.get(selector, partial(self._find, selector))
            if self._known_revision == revision:
                self._known[selector] = known
        return known

    async def _find(self, selector: Selector) -> CheckpointRef:
        model = await self._model(selector)
        requested = selector.epoch if isinstance(selector, ByName) else None
        number = model.job.best_epoch if requested is None else requested
        if not 1 <= number <= len(model.epochs):
            raise NotFoundError(
                "epoch",
                f"models/{model.job.job_id}/epochs/{number}",
                f"the model has the epochs 1 to {len(model.epochs)}",
            )
        epoch = model.epochs[number - 1]
        if not epoch.is_kept:
            kept = ", ".join(str(kept.result.epoch) for kept in model.epochs if kept.is_kept)
            raise NotFoundError(
                "epoch",
                f"models/{model.job.job_id}/epochs/{number}",
                f"the job's retention has dropped its checkpoint, and kept those of {kept}",
            )
        folder = self._artifacts.folder(model.job.job_id, epoch.attempt)
        return CheckpointRef(model=model, epoch=epoch.result, folder=folder)

    async def _model(self, selector: Selector) -> Model:
        if isinstance(selector, ByName):
            return await self._threads.run(self._store.models.get, selector.job_id)
        best = await self._threads.run(self._store.models.find_best, selector)
        if best is None:
            raise NotFoundError(
                "variant",
                f"of {_network(selector)} on {selector.dataset}",
                "train one; ListModels and `leadline models` list them",
            )
        return best


def _network(variant: VariantFilter) -> str:
    """A variant's network in words, the same as the client's: "2 blocks with batch norm"."""
    kind = "residual block" if variant.residual else "block"
    plural = "" if variant.blocks == 1 else "s"
    convolutions = variant.block_convolutions or 1
    form = f" of {convolutions} convolutions" if convolutions > 1 else ""
    norm = "with" if variant.batch_norm else "without"
    return f"{variant.blocks} {kind}{plural}{form} {norm} batch norm"
