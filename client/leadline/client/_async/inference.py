"""The inference calls: models and predictions."""

from collections.abc import AsyncIterator

from leadline.client._async.connection import AsyncConnection
from leadline.client._async.predict import predict
from leadline.client._async.predict_stream import AsyncPredictionStream
from leadline.client._images import Images
from leadline.client._names import model_name
from leadline.client._predictions import Predictions
from leadline.client._requests import ModelLike, build, select
from leadline.client._retry import OnReconnect
from leadline.client._runtime import AsyncImageStream
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
        block_convolutions: int | None = None,
        batch_norm: bool | None = None,
        residual: bool | None = None,
        page_size: int = 0,
    ) -> AsyncIterator[Model]:
        """Every model, the newest first, or those of a dataset, depth or kind only."""
        request = build(
            ListModelsRequest(),
            dataset=dataset,
            blocks=blocks,
            block_convolutions=block_convolutions,
            batch_norm=batch_norm,
            residual=residual,
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
        model: ModelLike | None = None,
        variant: Variant | None = None,
        dataset: str | None = None,
        blocks: int | None = None,
        block_convolutions: int | None = None,
        batch_norm: bool | None = None,
        residual: bool | None = None,
        top_k: int = 1,
        include_logits: bool = False,
    ) -> Predictions:
        """What a model takes images for, in their order: all of them, or an error.

        Any number of images: they are sent in requests of up to 1,024 images
        and 8 MiB, or of fewer where the server takes no more, all of which the
        checkpoint that answered the first answers.

        Args:
            images: one image or several, of one kind or of several. An image
                file: a path (str or Path), the bytes of a PNG or JPEG file, a
                Pillow image. An image that the server has: an `Example` of a
                listing, or its name, "datasets/{fingerprint}/{split}/{index}".
                Pixels: an array, of numpy or of any library whose
                arrays numpy can read, uint8 [32, 32, 3] or [N, 32, 32, 3] in
                [0, 255], or float32 [3, 32, 32] or [N, 3, 32, 32], normalised
                to [-1, 1]. Kinds that alternate make many small requests.
            model: a model, which means its best epoch, or one of its epochs;
                or its name, "models/{id}" or "models/{id}/epochs/{n}".
            variant: instead: the best model of this variant.
            dataset: instead of `variant`: its parts.
            blocks: the variant's depth.
            block_convolutions: the convolutions of each block, 1 or 2; None: 1.
            batch_norm: whether the variant has batch norm; None: it has not.
            residual: whether it has residual connections, likewise.
            top_k: how many of the most probable classes to return an image.
            include_logits: whether to return the logits of each image as well.

        Raises:
            InvalidArgumentError: an image is none, empty, corrupt or too
                large, an array has another shape or type, or not exactly one
                model or variant is named.
            NotFoundError: there is no such model, epoch or variant.
            OSError: a file cannot be read.
        """
        request = build(PredictRequest(), top_k=top_k, include_logits=include_logits)
        select(
            request,
            model=model,
            variant=variant,
            dataset=dataset,
            blocks=blocks,
            block_convolutions=block_convolutions,
            batch_norm=batch_norm,
            residual=residual,
        )
        return await predict(self._connection, images, request)

    def predict_stream(
        self,
        images: AsyncImageStream,
        *,
        model: ModelLike | None = None,
        variant: Variant | None = None,
        dataset: str | None = None,
        blocks: int | None = None,
        block_convolutions: int | None = None,
        batch_norm: bool | None = None,
        residual: bool | None = None,
        top_k: int = 1,
        include_logits: bool = False,
        batch_size: int | None = None,
        on_reconnect: OnReconnect | None = None,
    ) -> AsyncPredictionStream:
        """What a model takes images for, one after the other, however many there are.

        For each image, in order, there is its `Prediction`, or an
        `ImageFailure` where it cannot be classified, which keeps no other
        image from being. Images are taken from `images` as answers are taken
        from the stream, up to 4 requests of 256 images or 960 KiB ahead, so
        neither the images nor the answers need fit into memory. Where the
        connection breaks, for a restart of the server too, the stream is taken
        up again where it broke, for as long as the client's
        `reconnect_timeout` allows. One checkpoint answers all of it.

        Args:
            images: as for `predict`; a generator, say, and for the
                asynchronous client an asynchronous one too.
            model: as for `predict`, as are the others that are not named here.
            variant: as for `predict`.
            dataset: as for `predict`.
            blocks: as for `predict`.
            block_convolutions: as for `predict`.
            batch_norm: as for `predict`.
            residual: as for `predict`.
            top_k: as for `predict`.
            include_logits: as for `predict`.
            batch_size: images a request, up to 1,024; None: 256. With fewer,
                answers come sooner from `images` that come slowly.
            on_reconnect: called before each attempt to reconnect with the
                error and the seconds until the attempt.

        Raises:
            InvalidArgumentError: not exactly one model or variant is named, or
                `batch_size` is out of its range; or, when the stream is gone
                through as with the others here, another field is wrong.
            NotFoundError: there is no such model, epoch or variant.
            UnavailableError: the server was away for too long.
        """
        request = build(PredictRequest(), top_k=top_k, include_logits=include_logits)
        select(
            request,
            model=model,
            variant=variant,
            dataset=dataset,
            blocks=blocks,
            block_convolutions=block_convolutions,
            batch_norm=batch_norm,
            residual=residual,
        )
        return AsyncPredictionStream(self._connection, images, request, on_reconnect, batch_size)
