"""`leadline.v1.InferenceService`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from grpc import aio

from leadline.server.api.convert import from_model
from leadline.server.api.names import parse_model
from leadline.server.api.pages import PageTokens, page_size
from leadline.server.api.selectors import to_selector
from leadline.server.errors import InvalidArgumentError
from leadline.server.jobs.queries import JobQueries, VariantFilter
from leadline.server.serving.catalog import Catalog
from leadline.server.serving.engine import Scores
from leadline.server.serving.inputs import (
    InputLimits,
    Pixels,
    PixelType,
    check_files,
    decode_files,
    read_tensor,
)
from leadline.server.serving.predictor import Predictor
from leadline.server.threads import Threads
from leadline.v1 import inference_service_pb2, inference_service_pb2_grpc, model_pb2

Context = aio.ServicerContext[Any, Any]

_DEFAULT_PAGE_SIZE = 50
_MAX_TOP_K = 1_000

_PIXEL_TYPES = {
    inference_service_pb2.DATA_TYPE_UINT8: PixelType.UINT8,
    inference_service_pb2.DATA_TYPE_FLOAT32: PixelType.FLOAT32,
}


class InferenceServicer(inference_service_pb2_grpc.InferenceServiceServicer):
    """Predicts, and tells of models."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        predictor: Predictor,
        store: JobQueries,
        threads: Threads,
        tokens: PageTokens,
        limits: InputLimits,
    ) -> None:
        self._catalog = catalog
        self._predictor = predictor
        self._store = store
        self._threads = threads
        self._tokens = tokens
        self._limits = limits

    async def Predict(  # noqa: N802
        self, request: inference_service_pb2.PredictRequest, context: Context
    ) -> inference_service_pb2.PredictResponse:
        """Classifies images."""
        top_k = _top_k(request.top_k)
        selector = to_selector(request, request.WhichOneof("selector"))
        read = self._reader(request)
        checkpoint = await self._catalog.resolve(selector)
        scores = await self._predictor.predict(
            checkpoint, read, seconds_left=context.time_remaining()
        )
        return inference_service_pb2.PredictResponse(
            predictions=_predictions(scores, checkpoint.model.started.class_names, top_k),
            model=checkpoint.name,
            weights_sha256=checkpoint.epoch.weights_sha256,
        )

    async def ListModels(  # noqa: N802
        self, request: inference_service_pb2.ListModelsRequest, context: Context
    ) -> inference_service_pb2.ListModelsResponse:
        """Lists models."""
        del context
        size = page_size(request.page_size, default=_DEFAULT_PAGE_SIZE)
        wanted = VariantFilter(
            dataset=request.dataset or None,
            blocks=request.blocks if request.HasField("blocks") else None,
            batch_norm=request.batch_norm if request.HasField("batch_norm") else None,
        )
        query = ["models", wanted.dataset, wanted.blocks, wanted.batch_norm]
        before = self._tokens.read(query, request.page_token)
        models = await self._threads.run(
            self._store.list_models, wanted, before=before, limit=size + 1
        )
        page = models[:size]
        more = len(models) > size
        return inference_service_pb2.ListModelsResponse(
            models=[from_model(model) for model in page],
            next_page_token=self._tokens.make(query, page[-1].job.number) if more else "",
        )

    async def GetModel(  # noqa: N802
        self, request: inference_service_pb2.GetModelRequest, context: Context
    ) -> model_pb2.Model:
        """Returns a model."""
        del context
        job_id = parse_model(request.name)
        return from_model(await self._threads.run(self._store.get_model, job_id))

    def _reader(self, request: inference_service_pb2.PredictRequest) -> Callable[[], Pixels]:
        match request.WhichOneof("input"):
            case "encoded":
                files = request.encoded.images
                check_files(files, self._limits)
                return lambda: decode_files(files, self._limits)
            case "tensor":
                tensor = request.tensor
                pixel_type = _pixel_type(tensor.data_type)
                return lambda: read_tensor(pixel_type, tensor.shape, tensor.data, self._limits)
            case _:
                raise InvalidArgumentError.of("input", "is unset: set encoded or tensor")


def _pixel_type(number: int) -> PixelType:
    pixel_type = _PIXEL_TYPES.get(inference_service_pb2.DataType.ValueType(number))
    if pixel_type is None:
        raise InvalidArgumentError.of(
            "tensor.data_type",
            f"is {number}, but must be DATA_TYPE_UINT8 or DATA_TYPE_FLOAT32",
        )
    return pixel_type


def _top_k(requested: int) -> int:
    if not 0 <= requested <= _MAX_TOP_K:
        raise InvalidArgumentError.of(
            "top_k", f"must be from 0, which means 1, to {_MAX_TOP_K}, is {requested}"
        )
    return requested or 1


def _predictions(
    scores: Scores, class_names: tuple[str, ...], top_k: int
) -> list[inference_service_pb2.Prediction]:
    # A stable sort of the negated values: of equals the lower index is first,
    # as argmax has it.
    order = np.argsort(-scores.logits, axis=1, kind="stable")[:, :top_k]
    predictions = []
    for row, classes in zip(scores.probabilities, order, strict=True):
        top = [
            inference_service_pb2.ClassScore(
                class_index=int(index),
                class_name=class_names[index],
                probability=float(row[index]),
            )
            for index in classes
        ]
        best = top[0]
        predictions.append(
            inference_service_pb2.Prediction(
                class_index=best.class_index,
                class_name=best.class_name,
                probability=best.probability,
                top_k=top,
            )
        )
    return predictions
