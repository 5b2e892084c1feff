"""`inference.GRPCInferenceService`: convert, call, convert back.

`service` registers the methods.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from importlib import metadata as distribution
from typing import Any

from google.protobuf.message import Message
from grpc import aio

from leadline.oip.v2 import open_inference_pb2 as oip
from leadline.server.api.oip.descriptions import (
    MAX_NAMES,
    PLATFORM,
    configuration,
    index,
    metadata,
)
from leadline.server.api.oip.inference import Inference
from leadline.server.api.oip.names import NamedModels
from leadline.server.api.oip.reflection import WIRE_PACKAGE
from leadline.server.api.oip.requests import InferRequest
from leadline.server.api.oip.statistics import Counts, statistics_message, summed_statistics
from leadline.server.api.ordered_pipeline import PipelineGroup
from leadline.server.errors import InvalidArgumentError, NotFoundError, UnimplementedError
from leadline.server.services.models import ModelService
from leadline.server.services.predictions import PredictionService

Context = aio.ServicerContext[Any, Any]

# Calls a method, by its path and its request, in the other processes of the server.
AskOthers = Callable[[str, bytes], Awaitable[list[bytes]]]

_EXTENSIONS = ("classification", "model_configuration", "model_repository", "statistics")


class OpenInferenceServicer:
    """The protocol's methods."""

    def __init__(
        self,
        *,
        models: ModelService,
        predictions: PredictionService,
        streams: PipelineGroup,
        others: AskOthers | None = None,
    ) -> None:
        """Makes a servicer; `others` asks the other processes of the server, if any."""
        self._others = others
        self._models = models
        self._names = NamedModels(models)
        self._predictions = predictions
        self._streams = streams
        self._inference = Inference(models=models, predictions=predictions, streams=streams)
        self._is_serving = True

    def report_health(self, *, is_serving: bool) -> None:
        """Sets whether the server and its models are ready, in agreement with health."""
        self._is_serving = is_serving

    @property
    def _is_ready(self) -> bool:
        return self._is_serving and not self._streams.is_stopping

    # The server

    async def ServerLive(
        self, request: oip.ServerLiveRequest, context: Context
    ) -> oip.ServerLiveResponse:
        """Returns that the server is live."""
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: oip.ServerReadyRequest, context: Context
    ) -> oip.ServerReadyResponse:
        """Returns whether the server accepts requests, in agreement with health."""
        return oip.ServerReadyResponse(ready=self._is_ready)

    async def ServerMetadata(
        self, request: oip.ServerMetadataRequest, context: Context
    ) -> oip.ServerMetadataResponse:
        """Describes the server."""
        return oip.ServerMetadataResponse(
            name=PLATFORM, version=distribution.version("leadline"), extensions=_EXTENSIONS
        )

    # Inference

    def ModelInfer(self, request: InferRequest, context: Context) -> Coroutine[Any, Any, bytes]:
        """Classifies images; returns a serialized ModelInferResponse."""
        return self._inference.infer(request, context)

    def ModelStreamInfer(
        self, requests: AsyncIterator[InferRequest], context: Context
    ) -> AsyncIterator[bytes | oip.ModelStreamInferResponse]:
        """Classifies the images of each request, in order."""
        return self._inference.stream(requests, context)

    # Models

    async def ModelReady(
        self, request: oip.ModelReadyRequest, context: Context
    ) -> oip.ModelReadyResponse:
        """Returns whether a model accepts requests."""
        if not self._is_ready:
            return oip.ModelReadyResponse(ready=False)  # without a query: the store may not answer
        try:
            await self._names.resolve(request.name, request.version)
        except NotFoundError:
            return oip.ModelReadyResponse(ready=False)
        return oip.ModelReadyResponse(ready=True)

    async def ModelMetadata(
        self, request: oip.ModelMetadataRequest, context: Context
    ) -> oip.ModelMetadataResponse:
        """Describes a model."""
        return metadata(request.name, await self._names.resolve(request.name, request.version))

    async def ModelConfig(
        self, request: oip.ModelConfigRequest, context: Context
    ) -> oip.ModelConfigResponse:
        """Describes a model in the form of Triton's configurations."""
        checkpoint = await self._names.resolve(request.name, request.version)
        return configuration(request.name, checkpoint, max_images=self._predictions.limits.images)

    async def ModelStatistics(
        self, request: oip.ModelStatisticsRequest, context: Context
    ) -> oip.ModelStatisticsResponse:
        """Returns how many requests models had, and how long they took."""
        own = await self._statistics(request)
        others = await self._ask_others("ModelStatistics", request)
        parts = [oip.ModelStatisticsResponse.FromString(other) for other in others]
        return summed_statistics([own, *parts]) if parts else own

    async def _statistics(self, request: oip.ModelStatisticsRequest) -> oip.ModelStatisticsResponse:
        statistics = self._inference.statistics.all()
        if not request.name:
            return oip.ModelStatisticsResponse(
                model_stats=[statistics_message(*entry) for entry in statistics]
            )
        checkpoint = await self._names.resolve(request.name, request.version)
        job_id, best = checkpoint.model.job.job_id, checkpoint.epoch.epoch
        by_epoch = {epoch: counts for job, epoch, counts in statistics if job == job_id}
        if request.version or not by_epoch:
            by_epoch = {best: by_epoch.get(best, Counts())}
        return oip.ModelStatisticsResponse(
            model_stats=[statistics_message(request.name, *entry) for entry in by_epoch.items()]
        )

    # The repository

    async def RepositoryIndex(
        self, request: oip.RepositoryIndexRequest, context: Context
    ) -> oip.RepositoryIndexResponse:
        """Lists the newest models and every variant's name."""
        _check_repository(request.repository_name)
        return await self._models.list_names(index, limit=MAX_NAMES, caller=context.peer())

    async def RepositoryModelLoad(
        self, request: oip.RepositoryModelLoadRequest, context: Context
    ) -> oip.RepositoryModelLoadResponse:
        """Loads a model's best version into memory."""
        _check_repository(request.repository_name)
        if request.parameters:
            raise UnimplementedError(
                f"the parameters {', '.join(sorted(request.parameters))} are not supported: "
                "a trained model cannot be overridden"
            )
        await self._predictions.load(await self._names.resolve(request.model_name, ""))
        await self._ask_others("RepositoryModelLoad", request)
        return oip.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: oip.RepositoryModelUnloadRequest, context: Context
    ) -> oip.RepositoryModelUnloadResponse:
        """Drops every version of a model from memory."""
        _check_repository(request.repository_name)
        self._predictions.unload(await self._names.resolve(request.model_name, ""))
        await self._ask_others("RepositoryModelUnload", request)
        return oip.RepositoryModelUnloadResponse()

    async def _ask_others(self, method: str, request: Message) -> list[bytes]:
        """The responses of the other processes of the server."""
        if self._others is None:
            return []
        return await self._others(
            f"/{WIRE_PACKAGE}.GRPCInferenceService/{method}", request.SerializeToString()
        )


def _check_repository(name: str) -> None:
    if name:
        raise InvalidArgumentError.of(
            "repository_name", "must be empty: there is one repository, and it has no name"
        )
