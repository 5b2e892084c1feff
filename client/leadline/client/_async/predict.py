"""Predicting any number of images, request by request."""

from leadline.client._async.connection import AsyncConnection
from leadline.client._errors import InvalidArgumentError
from leadline.client._image_errors import shifted
from leadline.client._images import Images, chunks
from leadline.client._predictions import Predictions
from leadline.client._runtime import async_run
from leadline.v1.inference_service_pb2 import Prediction, PredictRequest, PredictResponse


async def predict(
    connection: AsyncConnection, images: Images, selector: PredictRequest
) -> Predictions:
    """The predictions, all of them by the checkpoint that answered the first request."""
    predictions: list[Prediction] = []
    response = PredictResponse()
    for load in chunks(images):
        request = await async_run(load)
        request.MergeFrom(selector)
        if response.model:
            # A better epoch may be completed between two requests.
            request.model = response.model
        try:
            response = await connection.call(connection.stubs.inference.Predict, request)
        except InvalidArgumentError as error:
            raise shifted(error, len(predictions)) from None
        predictions.extend(response.predictions)
    return Predictions(
        predictions=tuple(predictions),
        model=response.model,
        weights_sha256=response.weights_sha256,
    )
