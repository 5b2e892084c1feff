"""Inference by the Open Inference Protocol: convert, call, convert back."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Generator
from functools import partial
from typing import Any

from grpc import aio

from leadline.oip.v2 import open_inference_pb2 as oip
from leadline.server.api.common_fields import identity_of
from leadline.server.api.errors import to_status
from leadline.server.api.oip.inputs import to_image_input
from leadline.server.api.oip.names import NamedModels
from leadline.server.api.oip.outputs import RequestedOutput, in_stream, response
from leadline.server.api.oip.requests import Header, InferRequest
from leadline.server.api.oip.statistics import Statistics
from leadline.server.api.oip.straight import StraightPath
from leadline.server.api.ordered_pipeline import PipelineGroup
from leadline.server.errors import ServiceError
from leadline.server.services.models import ModelService
from leadline.server.services.predictions import ImageInput, PredictionService
from leadline.server.serving.catalog import CheckpointRef
from leadline.server.serving.classifier import Scores
from leadline.server.serving.inputs import Pixels, Steps

Context = aio.ServicerContext[Any, Any]

# Class strings that take a millisecond to format; a thread formats more.
_INLINE_STRINGS = 1_000

# A stream with this metadata ends at an error, with the error as its status.
_ERRORS_AS_STATUS = ("triton_grpc_error", "true")


class Inference:
    """Classifies images, and counts requests by checkpoint.

    Attributes:
        statistics: the counts.
    """

    def __init__(
        self, *, models: ModelService, predictions: PredictionService, streams: PipelineGroup
    ) -> None:
        self._names = NamedModels(models)
        self._known = models.known
        self._predictions = predictions
        self._streams = streams
        self.statistics = Statistics()

    def infer(
        self, request: InferRequest, context: Context, *, wait_if_full: bool = False
    ) -> Coroutine[Any, Any, bytes]:
        """Classifies images; returns a serialized ModelInferResponse."""
        return self._start(request, context) or self.infer_any(request, context, wait_if_full)

    def _start(self, request: InferRequest, context: Context) -> Coroutine[Any, Any, bytes] | None:
        """Starts a common request on its straight path; returns None for an unusual one."""
        started = time.perf_counter_ns()
        path = request.header.straight
        if path is None or path.images > self._predictions.limits.images:
            return None
        checkpoint = self._known(path.selector)
        pixels = None if checkpoint is None else path.pixels(request.raw)
        if checkpoint is None or pixels is None:
            return None
        decoded = time.perf_counter_ns()
        scoring = self._predictions.start(
            checkpoint,
            pixels,
            identity=identity_of(context),
            caller=context.peer(),
            seconds_left=context.time_remaining(),
        )
        if scoring is None:
            return None
        return self._finish(path, checkpoint, scoring, started, decoded)

    async def _finish(
        self,
        path: StraightPath,
        checkpoint: CheckpointRef,
        scoring: Awaitable[Scores],
        started: int,
        decoded: int,
    ) -> bytes:
        job, epoch = checkpoint.model.job, checkpoint.epoch
        counts = self.statistics.of((job.job_id, epoch.epoch))
        try:
            scores = await scoring
            inferred = time.perf_counter_ns()
            result = path.response(checkpoint, scores)
        except Exception:
            counts.add_failure(time.perf_counter_ns() - started)
            raise
        counts.add_success(
            path.images,
            queue=0,
            decoding=decoded - started,
            inference=inferred - decoded,
            encoding=time.perf_counter_ns() - inferred,
        )
        return result

    async def infer_any(
        self, request: InferRequest, context: Context, wait_if_full: bool = False
    ) -> bytes:
        """Classifies images on the general path, which handles every request."""
        started = time.perf_counter_ns()
        header, contents = request
        message = header.message
        checkpoint = await self._names.resolve(
            message.model_name, message.model_version, version_field="model_version"
        )
        counts = self.statistics.of((checkpoint.model.job.job_id, checkpoint.epoch.epoch))
        try:
            outputs = header.outputs
            images = to_image_input(header.tensor, contents, self._predictions.limits)
            times: list[int] = []

            def decode() -> Pixels | Steps:
                times.append(time.perf_counter_ns())
                pixels = images.decode()
                if isinstance(pixels, Generator):
                    return _timed(pixels, times)
                times.append(time.perf_counter_ns())
                return pixels

            scores = await self._predictions.predict(
                checkpoint,
                ImageInput(images.images, decode, images.run_inline),
                identity=identity_of(context),
                caller=context.peer(),
                seconds_left=_seconds_left(header, context),
                wait_if_full=wait_if_full,
            )
            inferred = time.perf_counter_ns()
            result = await _response(message, checkpoint, outputs, scores)
        except Exception:
            counts.add_failure(time.perf_counter_ns() - started)
            raise
        decode_started, decode_ended = times
        counts.add_success(
            len(scores.logits),
            queue=decode_started - started,
            decoding=decode_ended - decode_started,
            inference=inferred - decode_ended,
            encoding=time.perf_counter_ns() - inferred,
        )
        return result

    def stream(
        self, requests: AsyncIterator[InferRequest], context: Context
    ) -> AsyncIterator[bytes | oip.ModelStreamInferResponse]:
        """Classifies the images of each request, in order."""
        errors_as_status = _ERRORS_AS_STATUS in tuple(context.invocation_metadata() or ())
        respond = partial(self._respond, context=context, errors_as_status=errors_as_status)
        return self._streams.responses(requests, respond)

    async def _respond(
        self, request: InferRequest, context: Context, *, errors_as_status: bool
    ) -> bytes | oip.ModelStreamInferResponse:
        try:
            return in_stream(await self.infer(request, context, wait_if_full=True))
        except ServiceError as error:
            if errors_as_status:
                raise
            return _error_in_stream(request.header.message, error)


def _timed(steps: Steps, times: list[int]) -> Steps:
    """Runs the steps, and appends the time of their end to `times`."""
    pixels = yield from steps
    times.append(time.perf_counter_ns())
    return pixels


def _seconds_left(header: Header, context: Context) -> float | None:
    # The stubs declare a float, but it is None without a deadline.
    left: float | None = context.time_remaining()
    timeout = header.timeout
    if timeout is None or left is None:
        return timeout if left is None else left
    return min(left, timeout)


async def _response(
    request: oip.ModelInferRequest,
    checkpoint: CheckpointRef,
    outputs: tuple[RequestedOutput, ...],
    scores: Scores,
) -> bytes:
    # Numbers are copied as bytes; class strings are formatted one by one.
    run_inline = scores.logits.size <= _INLINE_STRINGS or not any(
        output.classes for output in outputs
    )
    if run_inline:
        return response(request, checkpoint, outputs, scores)
    return await asyncio.to_thread(response, request, checkpoint, outputs, scores)


def _error_in_stream(
    request: oip.ModelInferRequest, error: ServiceError
) -> oip.ModelStreamInferResponse:
    code, _ = to_status(error)
    return oip.ModelStreamInferResponse(
        error_message=str(error),
        infer_response=oip.ModelInferResponse(
            model_name=request.model_name,
            id=request.id,
            parameters={
                "status": oip.InferParameter(string_param=code.name),
                "reason": oip.InferParameter(string_param=error.reason),
                "triton_final_response": oip.InferParameter(bool_param=True),
            },
        ),
    )
