"""Predictions of a stream of images; opens further streams if one breaks."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from functools import partial

from leadline.client._async.connection import AsyncConnection
from leadline.client._batches import (
    Batch,
    Batcher,
    LoadedImage,
    predictions,
    request,
    source_or_failure,
    stream_batcher,
)
from leadline.client._errors import RpcError, UnavailableError
from leadline.client._grpc_errors import from_status, sdk_errors
from leadline.client._image_errors import is_too_large
from leadline.client._predictions import ImageFailure
from leadline.client._retry import Attempts, OnReconnect
from leadline.client._runtime import (
    AsyncImageStream,
    AsyncOutbox,
    AsyncStreamCall,
    async_cancel_after,
    async_each,
    async_end_at_exit,
    async_run,
    async_sleep,
)
from leadline.client._streamed import StreamedBatch
from leadline.v1.inference_service_pb2 import (
    Prediction,
    PredictRequest,
    PredictResponse,
    PredictStreamRequest,
    PredictStreamResponse,
)

# Requests in flight: one is being computed and one returns while two wait.
_MAX_IN_FLIGHT = 4

# The longest wait for the server to confirm the end of a stream.
_CLOSE_SECONDS = 5.0


class AsyncBulkPrediction:
    """The implementation of `AsyncPredictionStream`, which documents its attributes."""

    def __init__(
        self,
        connection: AsyncConnection,
        images: AsyncImageStream,
        selector: PredictRequest,
        on_reconnect: OnReconnect | None,
        batch_size: int | None,
    ) -> None:
        self.model = ""
        self.weights_sha256 = ""
        self._connection = connection
        self._selector = selector
        self._on_reconnect = on_reconnect
        self._reconnection = connection.reconnection(on_reconnect)
        # Whether the server has ever answered: otherwise it may not exist.
        self._answered = False
        self._first_attempts: Attempts | None = None
        self._call: AsyncStreamCall[PredictStreamResponse] | None = None
        self._outbox: AsyncOutbox[PredictStreamRequest] = AsyncOutbox()
        # Images that were read but not answered, in order; sent again if the stream breaks.
        self._pending: deque[StreamedBatch] = deque()
        self._batches = _batches(images, stream_batcher(batch_size))

    async def results(self) -> AsyncGenerator[Prediction | ImageFailure, None]:
        """Yields the result of each image, in order; iterate over it once."""
        try:
            while await self._fill():
                results = await self._first_results()
                with async_end_at_exit(self._call):
                    for result in results:
                        yield result
            await self._finish_stream()
        finally:
            self._detach()

    async def _fill(self) -> bool:
        """Fills the window of requests in flight; returns whether any is unanswered."""
        # The first request alone, because its checkpoint then answers all others.
        while len(self._pending) < (_MAX_IN_FLIGHT if self.model else 1):
            batch = await anext(self._batches, None)
            if batch is None:
                break
            streamed = await async_run(partial(StreamedBatch, batch))
            self._pending.append(streamed)
            if self._call is not None and streamed.images:
                self._send(streamed)
        return bool(self._pending)

    async def _first_results(self) -> list[Prediction | ImageFailure]:
        first = self._pending[0]
        if first.images:
            await self._answer_batch(first)
        self._pending.popleft()
        return first.results

    async def _answer_batch(self, batch: StreamedBatch) -> None:
        images = batch.images
        answer = await self._receive()
        if answer is None:
            await self._predict_parts(batch, [images])
        elif answer.HasField("error"):
            await self._predict_parts(batch, batch.refuse(images, from_status(answer.error)))
        else:
            self._record(batch, images, answer.response)

    async def _receive(self) -> PredictStreamResponse | None:
        """The next response; None if a request is too large for the server."""
        while True:
            try:
                return await self._next_answer(self._call or self._attach())
            except RpcError as error:
                self._detach()
                self._connection.check_open()
                if is_too_large(error):
                    return None
                await async_sleep(self._delay(error))

    async def _next_answer(
        self, call: AsyncStreamCall[PredictStreamResponse]
    ) -> PredictStreamResponse:
        try:
            with sdk_errors(self._connection):
                answer = await anext(aiter(call))
        except StopAsyncIteration:
            raise UnavailableError("the stream ended before its answers") from None
        self._answered = True
        self._reconnection.heard()
        return answer

    def _delay(self, error: RpcError) -> float:
        if self._answered or self._first_attempts is None:
            return self._reconnection.delay(error)
        return self._first_attempts.delay(error)

    async def _predict_parts(
        self, batch: StreamedBatch, parts: list[Sequence[LoadedImage]]
    ) -> None:
        """Predicts the images of a refused request in parts, while the stream waits."""
        while parts:
            part = parts.pop(0)
            try:
                response = await self._predict_part(part)
            except RpcError as error:
                parts = [*batch.refuse(part, error), *parts]
            else:
                self._record(batch, part, response)

    async def _predict_part(self, images: Sequence[LoadedImage]) -> PredictResponse:
        # Waits for an unavailable server as long as the stream does.
        reconnection = self._connection.reconnection(self._on_reconnect)
        while True:
            reconnection.began()
            try:
                return await self._connection.call(
                    self._connection.stubs.inference.Predict, request(images, self._selector)
                )
            except RpcError as error:
                if is_too_large(error):
                    raise
                await async_sleep(reconnection.delay(error))

    def _record(
        self, batch: StreamedBatch, images: Sequence[LoadedImage], response: PredictResponse
    ) -> None:
        batch.answer(images, predictions(images, response))
        self.model, self.weights_sha256 = response.model, response.weights_sha256
        self._selector.model = response.model

    def _attach(self) -> AsyncStreamCall[PredictStreamResponse]:
        self._connection.check_open()
        self._reconnection.began()
        self._first_attempts = self._first_attempts or Attempts(self._connection.timeout)
        self._outbox = AsyncOutbox()
        self._call = self._connection.stubs.inference.PredictStream(self._outbox)
        for batch in self._pending:
            if batch.images:
                self._send(batch)
        return self._call

    def _send(self, batch: StreamedBatch) -> None:
        self._outbox.put(PredictStreamRequest(request=request(batch.images, self._selector)))

    def _detach(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        self._outbox.close()

    async def _finish_stream(self) -> None:
        """Ends the stream cleanly, so that the server does not count it as an error."""
        if self._call is None:
            return
        self._outbox.close()
        # Ignores errors, because all images have results.
        with (
            suppress(RpcError, StopAsyncIteration),
            sdk_errors(self._connection),
            async_cancel_after(self._call, _CLOSE_SECONDS),
        ):
            await anext(aiter(self._call))


async def _batches(images: AsyncImageStream, batcher: Batcher) -> AsyncIterator[Batch]:
    index = 0
    async for image in async_each(images):
        source = source_or_failure(image, index)
        index += len(source)
        for loadable in source:
            if batch := batcher.add(loadable):
                yield batch
    if rest := batcher.rest():
        yield rest
