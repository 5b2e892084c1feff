"""`inference.GRPCInferenceService`: what is told of the server and of models.

Predictions are in `inference`; `service` puts the methods under their names.
"""

from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata as distribution
from typing import Any

from grpc import aio

from leadline.oip.v2 import open_inference_pb2 as oip
from leadline.server.api.oip.descriptions import PLATFORM, configuration, index, metadata
from leadline.server.api.oip.inference import InferenceMethods
from leadline.server.api.oip.names import Models
from leadline.server.api.oip.statistics import Counts, statistics_message
from leadline.server.errors import InvalidArgumentError, NotFoundError, UnimplementedError
from leadline.server.jobs.job import Model
from leadline.server.jobs.variants import VariantFilter
from leadline.server.serving.catalog import Catalog
from leadline.server.serving.inputs import InputLimits
from leadline.server.serving.predictor import Predictor
from leadline.server.storage.store import Store
from leadline.server.thread_pool import ThreadPool

Context = aio.ServicerContext[Any, Any]

_EXTENSIONS = ("classification", "model_configuration", "model_repository", "statistics")

# Models that are read from the store at a time.
_PAGE = 200


class OpenInferenceServicer(InferenceMethods):
    """Answers the protocol's calls."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        predictor: Predictor,
        store: Store,
        threads: ThreadPool,
        limits: InputLimits,
        max_pending_per_stream: int,
    ) -> None:
        """Makes a servicer.

        Args:
            catalog: finds checkpoints.
            predictor: answers for them.
            store: knows all models.
            threads: where the store is asked.
            limits: the most that a request may carry.
            max_pending_per_stream: messages of a stream in work at a time.
        """
        super().__init__(
            models=Models(catalog),
            predictor=predictor,
            limits=limits,
            max_pending_per_stream=max_pending_per_stream,
        )
        self._store = store
        self._threads = threads

    # The server

    async def ServerLive(  # noqa: N802
        self, request: oip.ServerLiveRequest, context: Context
    ) -> oip.ServerLiveResponse:
        """Says that the server answers."""
        del request, context
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(  # noqa: N802
        self, request: oip.ServerReadyRequest, context: Context
    ) -> oip.ServerReadyResponse:
        """Says whether the server takes work."""
        del request, context
        return oip.ServerReadyResponse(ready=not self.is_stopping)

    async def ServerMetadata(  # noqa: N802
        self, request: oip.ServerMetadataRequest, context: Context
    ) -> oip.ServerMetadataResponse:
        """Says what the server is."""
        del request, context
        return oip.ServerMetadataResponse(
            name=PLATFORM, version=distribution.version("leadline"), extensions=_EXTENSIONS
        )

    # Models

    async def ModelReady(  # noqa: N802
        self, request: oip.ModelReadyRequest, context: Context
    ) -> oip.ModelReadyResponse:
        """Says whether a model can be asked."""
        del context
        try:
            await self._models.find(request.name, request.version)
        except NotFoundError:
            return oip.ModelReadyResponse(ready=False)
        return oip.ModelReadyResponse(ready=not self.is_stopping)

    async def ModelMetadata(  # noqa: N802
        self, request: oip.ModelMetadataRequest, context: Context
    ) -> oip.ModelMetadataResponse:
        """Describes a model."""
        del context
        return metadata(request.name, await self._models.find(request.name, request.version))

    async def ModelConfig(  # noqa: N802
        self, request: oip.ModelConfigRequest, context: Context
    ) -> oip.ModelConfigResponse:
        """Describes a model as Triton's configurations do."""
        del context
        checkpoint = await self._models.find(request.name, request.version)
        return configuration(request.name, checkpoint, max_images=self._limits.images)

    async def ModelStatistics(  # noqa: N802
        self, request: oip.ModelStatisticsRequest, context: Context
    ) -> oip.ModelStatisticsResponse:
        """Tells what was asked of models."""
        del context
        if not request.name:
            return oip.ModelStatisticsResponse(
                model_stats=[statistics_message(*one) for one in self._statistics.all()]
            )
        checkpoint = await self._models.find(request.name, request.version)
        job_id, best = checkpoint.model.job.job_id, checkpoint.epoch.epoch
        found = {epoch: counts for job, epoch, counts in self._statistics.all() if job == job_id}
        if request.version or not found:
            found = {best: found.get(best, Counts())}
        return oip.ModelStatisticsResponse(
            model_stats=[statistics_message(request.name, *one) for one in found.items()]
        )

    # The repository

    async def RepositoryIndex(  # noqa: N802
        self, request: oip.RepositoryIndexRequest, context: Context
    ) -> oip.RepositoryIndexResponse:
        """Lists every model."""
        del context
        _check_repository(request.repository_name)
        return await self._threads.run(lambda: index(self._all_models(), only_ready=request.ready))

    async def RepositoryModelLoad(  # noqa: N802
        self, request: oip.RepositoryModelLoadRequest, context: Context
    ) -> oip.RepositoryModelLoadResponse:
        """Brings a model's best version into memory."""
        del context
        _check_repository(request.repository_name)
        if request.parameters:
            raise UnimplementedError(
                f"the parameters {', '.join(sorted(request.parameters))} are not supported: "
                "a model is what was trained, and nothing of it can be overridden"
            )
        checkpoint = await self._models.find(request.model_name, "")
        await self._threads.run(self._predictor.loaded.get, checkpoint)
        return oip.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(  # noqa: N802
        self, request: oip.RepositoryModelUnloadRequest, context: Context
    ) -> oip.RepositoryModelUnloadResponse:
        """Drops every version of a model from memory."""
        del context
        _check_repository(request.repository_name)
        checkpoint = await self._models.find(request.model_name, "")
        for version in checkpoint.model.epochs:
            self._predictor.loaded.drop(replace(checkpoint, epoch=version.result))
        return oip.RepositoryModelUnloadResponse()

    def _all_models(self) -> Iterator[Model]:
        before = None
        while page := self._store.models.find(VariantFilter(), before=before, limit=_PAGE):
            yield from page
            before = page[-1].job.number


def _check_repository(name: str) -> None:
    if name:
        raise InvalidArgumentError.of(
            "repository_name", "must be empty: there is one repository, and it has no name"
        )
