"""`leadline.v1.InferenceService`: convert, call, convert back."""

import dataclasses
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Any

from grpc import aio

from leadline.server.api.common_fields import identity_of, to_owner
from leadline.server.api.errors import to_status
from leadline.server.api.models import from_model, to_filter, to_selector
from leadline.server.api.names import parse_model
from leadline.server.api.ordered_pipeline import PipelineGroup
from leadline.server.api.pages import PageTokens
from leadline.server.api.predictions import add_predictions, to_image_input, to_top_k
from leadline.server.errors import DataLossError, InvalidArgumentError, NotFoundError
from leadline.server.jobs.job import Model
from leadline.server.services.models import ModelService
from leadline.server.services.predictions import PredictionService
from leadline.v1 import inference_service_pb2 as pb
from leadline.v1 import inference_service_pb2_grpc, model_pb2

Context = aio.ServicerContext[Any, Any]

# Errors of one message of a stream, which recur whenever it is sent. Other
# errors are transient: they end the stream, and the caller sends the
# unanswered messages again.
_MESSAGE_ERRORS = (InvalidArgumentError, NotFoundError, DataLossError)


class InferenceServicer(inference_service_pb2_grpc.InferenceServiceServicer):
    """Classifies images, and describes models."""

    def __init__(
        self,
        *,
        models: ModelService,
        predictions: PredictionService,
        streams: PipelineGroup,
        tokens: PageTokens,
    ) -> None:
        self._models = models
        self._predictions = predictions
        self._streams = streams
        self._tokens = tokens

    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        """Classifies images."""
        return await self._predict(request, context, wait_if_full=False)

    def PredictStream(
        self, requests: AsyncIterator[pb.PredictStreamRequest], context: Context
    ) -> AsyncIterator[pb.PredictStreamResponse]:
        """Classifies images, message by message."""
        return self._streams.responses(requests, partial(self._respond, context=context))

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Lists models."""
        variant, owner = to_filter(request), to_owner(request.owner, context)
        page = self._tokens.page(request, ["models", *dataclasses.astuple(variant), owner])

        def respond(models: Iterable[Model]) -> pb.ListModelsResponse:
            messages, token = page.fill(models, from_model, cursor=lambda model: model.job.number)
            return pb.ListModelsResponse(models=messages, next_page_token=token)

        return await self._models.list_models(
            respond,
            variant,
            owner=owner,
            before=page.after,
            limit=page.size + 1,
            caller=context.peer(),
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> model_pb2.Model:
        """Returns a model."""
        job_id = parse_model(request.name)
        return await self._models.get(from_model, job_id, caller=context.peer())

    async def ExportModel(
        self, request: pb.ExportModelRequest, context: Context
    ) -> pb.ExportModelResponse:
        """Returns a checkpoint's network as an ONNX model."""
        checkpoint = await self._models.resolve(to_selector(request))
        return pb.ExportModelResponse(
            model=checkpoint.name,
            weights_sha256=checkpoint.epoch.weights_sha256,
            onnx=await self._models.export(checkpoint, caller=context.peer()),
        )

    async def _respond(
        self, message: pb.PredictStreamRequest, context: Context
    ) -> pb.PredictStreamResponse:
        try:
            if not message.HasField("request"):
                raise InvalidArgumentError.of("request", "is unset: say what to classify")
            # Streams wait: each has few messages in flight, and its caller has time.
            response = await self._predict(message.request, context, wait_if_full=True)
        except _MESSAGE_ERRORS as error:
            _, status = to_status(error)
            return pb.PredictStreamResponse(error=status)
        return pb.PredictStreamResponse(response=response)

    async def _predict(
        self, request: pb.PredictRequest, context: Context, *, wait_if_full: bool
    ) -> pb.PredictResponse:
        top_k = to_top_k(request.top_k)
        selector = to_selector(request)
        images = to_image_input(request, self._predictions)
        checkpoint = await self._models.resolve(selector)
        scores = await self._predictions.predict(
            checkpoint,
            images,
            identity=identity_of(context),
            caller=context.peer(),
            seconds_left=context.time_remaining(),
            wait_if_full=wait_if_full,
        )
        response = pb.PredictResponse(
            model=checkpoint.name, weights_sha256=checkpoint.epoch.weights_sha256
        )
        class_names = checkpoint.model.started.class_names
        await add_predictions(
            response, scores, class_names, top_k, include_logits=request.include_logits
        )
        return response
