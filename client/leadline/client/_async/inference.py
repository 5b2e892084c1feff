"""The inference calls: models and predictions."""

from collections.abc import AsyncIterator

from leadline.client._async.connection import AsyncConnection
from leadline.client._async.predict import predict
from leadline.client._images import Images
from leadline.client._names import model_name
from leadline.client._predictions import Predictions
from leadline.client._requests import build, select
from leadline.v1.inference_service_pb2 import GetModelRequest, ListModelsRequest, PredictRequest
from leadline.v1.model_pb2 import Model, Variant


class AsyncInferenceCalls:
    """The part of the client that predicts."""

    _connection: AsyncConnection

    async def models(
        self,
        *,
        dataset: str = "",
        blocks: int | None = None,
        batch_norm: bool | None = None,
        page_size: int = 0,
    ) -> AsyncIterator[Model]:
        """Every model, the newest first, or those of a dataset, depth or kind only."""
        request = build(
            ListModelsRequest(),
            dataset=dataset,
            blocks=blocks,
            batch_norm=batch_norm,
            page_size=page_size,
        )
        while True:
            page = await self._connection.call(self._connection.stubs.inference.ListModels, request)
            for model in page.models:
                yield model
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def get_model(self, name: str) -> Model:
        """A model with all its epochs, by its name or bare ID.

        Raises:
            NotFoundError: there is no such model.
        """
        request = GetModelRequest(name=model_name(name))
        return await self._connection.call(self._connection.stubs.inference.GetModel, request)

    async def predict(
        self,
        images: Images,
        *,
        model: str | None = None,
        variant: Variant | None = None,
        dataset: str | None = None,
        blocks: int | None = None,
        batch_norm: bool | None = None,
        top_k: int = 1,
    ) -> Predictions:
        """What a model takes images for, in their order.

        Any number of images: they are sent in requests of up to 1,024 images
        and 8 MiB, all of which the checkpoint that answered the first answers.

        Args:
            images: one image or several of a kind. An image file: a path
                (str or Path), the bytes of a PNG or JPEG file, a Pillow
                image. Pixels: an array, of numpy or of any library whose
                arrays numpy can read, uint8 [32, 32, 3] or [N, 32, 32, 3] in
                [0, 255], or float32 [3, 32, 32] or [N, 3, 32, 32], normalised
                to [-1, 1].
            model: the name of a model, which means its best epoch, or of one
                of its epochs, "models/{id}/epochs/{n}".
            variant: instead: the best model of this variant.
            dataset: instead of `variant`: its parts.
            blocks: the variant's depth.
            batch_norm: whether the variant has batch norm; None: it has not.
            top_k: how many of the most probable classes to return an image.

        Raises:
            InvalidArgumentError: an image is none, empty, corrupt or too
                large, an array has another shape or type, kinds are mixed, or
                not exactly one model or variant is named.
            NotFoundError: there is no such model, epoch or variant.
            OSError: a file cannot be read.
        """
        request = build(PredictRequest(), top_k=top_k)
        select(
            request,
            model=model,
            variant=variant,
            dataset=dataset,
            blocks=blocks,
            batch_norm=batch_norm,
        )
        return await predict(self._connection, images, request)
