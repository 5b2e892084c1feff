"""`leadline.v1.InferenceService`."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from grpc import aio

from leadline.server.api.convert import from_model
from leadline.server.api.errors import to_status
from leadline.server.api.names import parse_model
from leadline.server.api.ordered_pipeline import OrderedPipeline
from leadline.server.api.pages import PageTokens, page_size
from leadline.server.api.predict import PredictHandler
from leadline.server.errors import DataLossError, InvalidArgumentError, NotFoundError
from leadline.server.storage.queries import JobQueries, VariantFilter
from leadline.server.thread_pool import ThreadPool
from leadline.v1 import inference_service_pb2, inference_service_pb2_grpc, model_pb2

Context = aio.ServicerContext[Any, Any]

_DEFAULT_PAGE_SIZE = 50

# What is wrong with one message of a stream, and will be whenever it is sent.
# Other errors are of the moment: they end the stream, so that the caller sends
# what is unanswered again.
_ERRORS_OF_A_MESSAGE = (InvalidArgumentError, NotFoundError, DataLossError)


class InferenceServicer(inference_service_pb2_grpc.InferenceServiceServicer):
    """Predicts, and tells of models."""

    def __init__(
        self,
        *,
        handler: PredictHandler,
        store: JobQueries,
        threads: ThreadPool,
        tokens: PageTokens,
        max_pending_per_stream: int,
    ) -> None:
        self._handler = handler
        self._store = store
        self._threads = threads
        self._tokens = tokens
        self._max_pending_per_stream = max_pending_per_stream
        self._streams: set[OrderedPipeline[Any, Any]] = set()
        self._closed = False

    async def Predict(  # noqa: N802
        self, request: inference_service_pb2.PredictRequest, context: Context
    ) -> inference_service_pb2.PredictResponse:
        """Classifies images."""
        return await self._handler.handle(
            request, caller=context.peer(), seconds_left=context.time_remaining()
        )

    async def PredictStream(  # noqa: N802
        self,
        requests: AsyncIterator[inference_service_pb2.PredictStreamRequest],
        context: Context,
    ) -> AsyncIterator[inference_service_pb2.PredictStreamResponse]:
        """Classifies images, message by message."""

        async def answer(
            message: inference_service_pb2.PredictStreamRequest,
        ) -> inference_service_pb2.PredictStreamResponse:
            return await self._answer(message, context)

        stream = OrderedPipeline(answer, max_in_flight=self._max_pending_per_stream)
        self._streams.add(stream)
        if self._closed:
            stream.stop()
        try:
            async with aclosing(stream.responses(requests)) as answers:
                async for one in answers:
                    yield one
        finally:
            self._streams.discard(stream)

    def close(self) -> None:
        """Has streams end once what they have read is answered."""
        self._closed = True
        for stream in self._streams:
            stream.stop()

    async def ListModels(  # noqa: N802
        self, request: inference_service_pb2.ListModelsRequest, context: Context
    ) -> inference_service_pb2.ListModelsResponse:
        """Lists models."""
        del context
        size = page_size(request.page_size, default=_DEFAULT_PAGE_SIZE)
        wanted = VariantFilter(
            dataset=request.dataset or None,
            blocks=request.blocks if request.HasField("blocks") else None,
            block_convolutions=(
                request.block_convolutions if request.HasField("block_convolutions") else None
            ),
            batch_norm=request.batch_norm if request.HasField("batch_norm") else None,
            residual=request.residual if request.HasField("residual") else None,
        )
        query = ["models", *dataclasses.astuple(wanted)]
        before = self._tokens.read(query, request.page_token)
        models = await self._threads.run(
            self._store.list_models, wanted, before=before, limit=size + 1
        )
        page, token = self._tokens.cut(query, models, size, position=lambda model: model.job.number)
        return inference_service_pb2.ListModelsResponse(
            models=[from_model(model) for model in page],
            next_page_token=token,
        )

    async def GetModel(  # noqa: N802
        self, request: inference_service_pb2.GetModelRequest, context: Context
    ) -> model_pb2.Model:
        """Returns a model."""
        del context
        job_id = parse_model(request.name)
        return from_model(await self._threads.run(self._store.get_model, job_id))

    async def _answer(
        self, message: inference_service_pb2.PredictStreamRequest, context: Context
    ) -> inference_service_pb2.PredictStreamResponse:
        try:
            if not message.HasField("request"):
                raise InvalidArgumentError.of("request", "is unset: say what to classify")
            # A stream waits: it has few messages here, and its caller has time.
            response = await self._handler.handle(
                message.request,
                caller=context.peer(),
                seconds_left=context.time_remaining(),
                wait_if_full=True,
            )
        except _ERRORS_OF_A_MESSAGE as error:
            _, status = to_status(error)
            return inference_service_pb2.PredictStreamResponse(error=status)
        return inference_service_pb2.PredictStreamResponse(response=response)
