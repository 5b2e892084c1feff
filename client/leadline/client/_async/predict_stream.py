"""The handle of a stream of predictions."""

from typing import Self

from leadline.client._async.bulk import AsyncBulkPrediction
from leadline.client._async.connection import AsyncConnection
from leadline.client._predictions import ImageFailure
from leadline.client._retry import OnReconnect
from leadline.client._runtime import AsyncImageStream
from leadline.v1.inference_service_pb2 import Prediction, PredictRequest


class AsyncPredictionStream:
    """The predictions of images, one by one.

    Iterate over it with `async for`, once. It reads at most a few requests of
    images ahead. To stop before its end, close it with `aclose`.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        images: AsyncImageStream,
        selector: PredictRequest,
        on_reconnect: OnReconnect | None,
        batch_size: int | None,
    ) -> None:
        """Use `AsyncClient.predict_stream` instead."""
        # Holds no reference to this object, so that dropping this object ends the call.
        self._work = AsyncBulkPrediction(connection, images, selector, on_reconnect, batch_size)
        self._results = self._work.results()

    @property
    def model(self) -> str:
        """The checkpoint, "models/{id}/epochs/{n}"; empty before the first prediction."""
        return self._work.model

    @property
    def weights_sha256(self) -> str:
        """The SHA-256 of the weights file, in hexadecimal; empty before the first prediction."""
        return self._work.weights_sha256

    def __aiter__(self) -> Self:
        """Returns the stream."""
        return self

    async def __anext__(self) -> Prediction | ImageFailure:
        """The prediction of the next image, or the failure to classify it."""
        return await anext(self._results)

    async def aclose(self) -> None:
        """Closes the stream, which then yields nothing more."""
        await self._results.aclose()
