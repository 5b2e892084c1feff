"""The handle of a training job."""

from collections.abc import AsyncIterator

from leadline.client._async.handle import AsyncHandle
from leadline.client._async.predict import predict
from leadline.client._async.predict_stream import AsyncPredictionStream
from leadline.client._errors import JobCancelledError, JobFailedError
from leadline.client._images import Images
from leadline.client._predictions import Predictions
from leadline.client._requests import build
from leadline.client._retry import OnReconnect
from leadline.client._runtime import AsyncImageStream
from leadline.v1.inference_service_pb2 import PredictRequest
from leadline.v1.job_pb2 import JOB_STATE_CANCELLED, JOB_STATE_FAILED, EpochResult, Job, JobEvent


class AsyncTrainingJob(AsyncHandle[Job, JobEvent]):
    """A job on the server: follow it, wait for it, control it, or predict with its model."""

    _kind = "Job"

    @property
    def model(self) -> str:
        """The resource name of its model, which exists after the first completed epoch."""
        return f"models/{self.id}"

    async def epochs(
        self, *, on_reconnect: OnReconnect | None = None
    ) -> AsyncIterator[EpochResult]:
        """Yields the result of every epoch, from the first one, as soon as it is complete.

        Ends when the job has ended, in any state; `result()` raises if it failed.

        Raises:
            NotFoundError: the job does not exist, or was deleted meanwhile.
            UnavailableError: the server was unavailable for too long.
            EventGapError: an event is missing.
        """
        async for event in self.events(on_reconnect=on_reconnect):
            if event.HasField("epoch"):
                yield event.epoch

    async def predict(
        self,
        images: Images,
        *,
        epoch: int | None = None,
        top_k: int = 1,
        include_logits: bool = False,
    ) -> Predictions:
        """The predictions of the job's model; see `AsyncClient.predict`.

        Args:
            images: one image or several.
            epoch: the epoch that predicts, 1 for the first; None for the best so far.
            top_k: how many of the most probable classes to return per image.
            include_logits: whether to return the logits of each image as well.

        Raises:
            InvalidArgumentError: an image is empty, corrupt, too large or not an image.
            NotFoundError: this epoch, or any epoch, is not complete yet.
            OSError: a file cannot be read.
        """
        request = self._predict_request(epoch, top_k, include_logits=include_logits)
        return await predict(self._connection, images, request)

    def predict_stream(
        self,
        images: AsyncImageStream,
        *,
        epoch: int | None = None,
        top_k: int = 1,
        include_logits: bool = False,
        batch_size: int | None = None,
        on_reconnect: OnReconnect | None = None,
    ) -> AsyncPredictionStream:
        """The predictions one by one; see `AsyncClient.predict_stream`.

        Args:
            images: any number of images.
            epoch: the epoch that predicts, 1 for the first; None for the best so far.
            top_k: how many of the most probable classes to return per image.
            include_logits: whether to return the logits of each image as well.
            batch_size: images per request; None for 256.
            on_reconnect: called before each attempt to reconnect.
        """
        request = self._predict_request(epoch, top_k, include_logits=include_logits)
        return AsyncPredictionStream(self._connection, images, request, on_reconnect, batch_size)

    def _check_success(self, resource: Job) -> None:
        if resource.state == JOB_STATE_FAILED:
            raise JobFailedError(resource)
        if resource.state == JOB_STATE_CANCELLED:
            raise JobCancelledError(resource)

    def _predict_request(
        self, epoch: int | None, top_k: int, *, include_logits: bool
    ) -> PredictRequest:
        model = self.model if epoch is None else f"{self.model}/epochs/{epoch}"
        return build(PredictRequest(), model=model, top_k=top_k, include_logits=include_logits)
