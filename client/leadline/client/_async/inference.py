"""The inference calls: models and predictions."""

from collections.abc import AsyncIterator
from typing import Unpack

from leadline.client._async.connection import AsyncConnection
from leadline.client._async.predict import predict
from leadline.client._async.predict_stream import AsyncPredictionStream
from leadline.client._images import Images
from leadline.client._names import model_name
from leadline.client._predictions import Predictions
from leadline.client._requests import Selection, build, select
from leadline.client._retry import OnReconnect
from leadline.client._runtime import AsyncImageStream
from leadline.v1.inference_service_pb2 import (
    ExportModelRequest,
    ExportModelResponse,
    GetModelRequest,
    ListModelsRequest,
    PredictRequest,
)
from leadline.v1.model_pb2 import Model


class AsyncInferenceCalls:
    """The part of the client that predicts."""

    _connection: AsyncConnection

    async def models(
        self,
        *,
        dataset: str | None = None,
        blocks: int | None = None,
        block_convolutions: int | None = None,
        batch_norm: bool | None = None,
        residual: bool | None = None,
        owner: str | None = None,
        page_size: int = 0,
    ) -> AsyncIterator[Model]:
        """Yields every model, the newest first; arguments that are not None filter them.

        The owner is the name of an identity, or "me" for your own.
        """
        request = build(
            ListModelsRequest(),
            dataset=dataset,
            blocks=blocks,
            block_convolutions=block_convolutions,
            batch_norm=batch_norm,
            residual=residual,
            owner=owner,
            page_size=page_size,
        )
        async for page in self._connection.pages(
            self._connection.stubs.inference.ListModels, request
        ):
            for model in page.models:
                yield model

    async def get_model(self, name: str) -> Model:
        """A model with all its epochs, by its name or ID.

        Raises:
            NotFoundError: the model does not exist.
        """
        request = GetModelRequest(name=model_name(name))
        return await self._connection.call(self._connection.stubs.inference.GetModel, request)

    async def export_model(self, **selection: Unpack[Selection]) -> ExportModelResponse:
        """A network as an ONNX model, for other inference engines.

        Args:
            **selection: the model, as for `predict`.

        Returns:
            The checkpoint's name, the hash of its weights, and the bytes of the ONNX model:
            its input `images` is float32 [N, 3, 32, 32], normalised to [-1, 1]; its outputs
            `logits` and `probabilities` are float32 [N, classes].

        Raises:
            InvalidArgumentError: the arguments name not exactly one model or variant.
            NotFoundError: the model, epoch or variant does not exist.
        """
        request = select(ExportModelRequest(), **selection)
        return await self._connection.call(self._connection.stubs.inference.ExportModel, request)

    async def predict(
        self,
        images: Images,
        *,
        top_k: int = 1,
        include_logits: bool = False,
        **selection: Unpack[Selection],
    ) -> Predictions:
        """The predictions of images, in order: all of them, or an error.

        Takes any number of images. Sends them in requests of up to 1,024
        images and 8 MiB, or less if the server's limits are lower. The
        checkpoint that answers the first request answers all.

        Args:
            images: one or more images, of one or more kinds. An image file:
                a path (str or Path), the bytes of a PNG or JPEG file, a
                Pillow image. An image on the server: an `Example` of a
                listing, or its name, "datasets/{fingerprint}/{split}/{index}".
                Pixels: an array of numpy or of any library whose arrays numpy
                can read. It is uint8 [32, 32, 3] or [N, 32, 32, 3] in [0, 255],
                or float32 [3, 32, 32] or [N, 3, 32, 32], normalised to [-1, 1].
                Alternating kinds need many small requests.
            top_k: how many of the most probable classes to return per image.
            include_logits: whether to return the logits of each image as well.
            **selection: the model:
                model: a model, which stands for its best epoch, or one of its
                epochs; or its name, "models/{id}" or "models/{id}/epochs/{n}".
                variant: the best model of this variant, instead of `model`.
                dataset: the variant's dataset, instead of `variant`.
                blocks: the variant's depth.
                block_convolutions: the convolutions of each block; None for 1.
                batch_norm: whether the variant has batch norm; None for no.
                residual: whether it has residual connections; None for no.

        Raises:
            InvalidArgumentError: an image is empty, corrupt, too large or not
                an image; an array has another shape or type; or the arguments
                do not name exactly one model or variant.
            NotFoundError: the model, epoch or variant does not exist.
            OSError: a file cannot be read.
        """
        request = build(PredictRequest(), top_k=top_k, include_logits=include_logits)
        select(request, **selection)
        return await predict(self._connection, images, request)

    def predict_stream(
        self,
        images: AsyncImageStream,
        *,
        top_k: int = 1,
        include_logits: bool = False,
        batch_size: int | None = None,
        on_reconnect: OnReconnect | None = None,
        **selection: Unpack[Selection],
    ) -> AsyncPredictionStream:
        """The predictions of images one by one, for any number of images.

        For each image, in order, yields its `Prediction`, or an `ImageFailure`
        if it cannot be classified. Reads images only up to 4 requests of 256
        images or 960 KiB ahead of the consumed predictions, so neither need fit
        into memory. If the connection breaks, for example because the server
        restarts, the stream resumes where it broke, within the client's
        `reconnect_timeout`. One checkpoint answers the whole stream.

        Args:
            images: as for `predict`, or a generator; for the asynchronous
                client also an asynchronous one.
            top_k: as for `predict`.
            include_logits: as for `predict`.
            batch_size: images per request, up to 1,024; None for 256. If
                `images` arrive slowly, small batches return sooner.
            on_reconnect: called before each attempt to reconnect, with the
                error and the seconds until the attempt.
            **selection: the model, as for `predict`.

        Raises:
            InvalidArgumentError: the arguments do not name exactly one model or
                variant, or `batch_size` is out of range. Iterating raises it
                for other invalid fields, and raises the following errors.
            NotFoundError: the model, epoch or variant does not exist.
            UnavailableError: the server was unavailable for too long.
        """
        request = build(PredictRequest(), top_k=top_k, include_logits=include_logits)
        select(request, **selection)
        return AsyncPredictionStream(self._connection, images, request, on_reconnect, batch_size)
