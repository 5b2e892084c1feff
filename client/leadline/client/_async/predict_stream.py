"""The handle of predictions that come one by one."""

from typing import Self

from leadline.client._async.bulk import AsyncBulkPrediction
from leadline.client._async.connection import AsyncConnection
from leadline.client._predictions import ImageFailure
from leadline.client._retry import OnReconnect
from leadline.client._runtime import AsyncImageStream
from leadline.v1.inference_service_pb2 import Prediction, PredictRequest


class AsyncPredictionStream:
    """What images are taken for, one after the other, as they are asked for.

    Gone through with `async for`, once. It reads a few requests of images
    ahead of what it has answered, and no more. What is left before its end is
    let go of with `aclose`.
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
        # That knows nothing of this, so the call ends as soon as this is dropped.
        self._work = AsyncBulkPrediction(connection, images, selector, on_reconnect, batch_size)
        self._results = self._work.results()

    @property
    def model(self) -> str:
        """The checkpoint that answers all of it, "models/{id}/epochs/{n}"; at first empty."""
        return self._work.model

    @property
    def weights_sha256(self) -> str:
        """The SHA-256 of its weights file, in hexadecimal; empty before the first prediction."""
        return self._work.weights_sha256

    def __aiter__(self) -> Self:
        """Itself."""
        return self

    async def __anext__(self) -> Prediction | ImageFailure:
        """What the next image is taken for, or why it cannot be classified."""
        return await anext(self._results)

    async def aclose(self) -> None:
        """Lets go of the stream; nothing more comes of it."""
        await self._results.aclose()
