"""Predicts any number of images, request by request."""

from collections import deque
from collections.abc import Sequence
from functools import partial

from leadline.client._async.connection import AsyncConnection
from leadline.client._batches import LoadedImage, batches, load_all, predictions, request
from leadline.client._errors import InvalidArgumentError, RpcError
from leadline.client._image_errors import is_too_much, renamed
from leadline.client._images import Images
from leadline.client._predictions import Predictions
from leadline.client._runtime import async_run
from leadline.v1.inference_service_pb2 import Prediction, PredictRequest, PredictResponse


async def predict(
    connection: AsyncConnection, images: Images, selector: PredictRequest
) -> Predictions:
    """The predictions, all from the checkpoint that answers the first request."""
    results: list[Prediction] = []
    response = PredictResponse()
    for batch in batches(images):
        waiting: deque[Sequence[LoadedImage]] = deque([await async_run(partial(load_all, batch))])
        while waiting:
            part = waiting.popleft()
            try:
                response = await connection.call(
                    connection.stubs.inference.Predict, request(part, selector)
                )
            except RpcError as error:
                waiting.extendleft(reversed(_smaller(part, error)))
                continue
            # Pins the checkpoint, because a better epoch may complete between two requests.
            selector.model = response.model
            results.extend(predictions(part, response))
    return Predictions(
        predictions=tuple(results),
        model=response.model,
        weights_sha256=response.weights_sha256,
    )


def _smaller(
    images: Sequence[LoadedImage], error: RpcError
) -> tuple[Sequence[LoadedImage], Sequence[LoadedImage]]:
    """The halves of a request that was refused because of its size.

    Raises:
        RpcError: the request was refused for another reason, or has only one image.
    """
    if len(images) > 1 and is_too_much(error):
        middle = len(images) // 2
        return images[:middle], images[middle:]
    if isinstance(error, InvalidArgumentError):
        # The server counts from the first image of each request.
        first = images[0].index
        raise renamed(error, lambda index: f"images[{first + index}]") from None
    raise error
