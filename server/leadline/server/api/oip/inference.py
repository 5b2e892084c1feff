"""ModelInfer and ModelStreamInfer: convert, call, convert back."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from grpc import aio

from leadline.oip.v2 import open_inference_pb2 as oip
from leadline.server.api.errors import to_status
from leadline.server.api.oip.inputs import parameter_number, reader
from leadline.server.api.oip.names import Models
from leadline.server.api.oip.outputs import Wanted, response, wanted_outputs
from leadline.server.api.oip.requests import InferRequest
from leadline.server.api.oip.statistics import Statistics
from leadline.server.api.ordered_pipeline import OrderedPipeline
from leadline.server.errors import ServiceError
from leadline.server.serving.catalog import CheckpointRef
from leadline.server.serving.classifier import Scores
from leadline.server.serving.inputs import InputLimits, Pixels
from leadline.server.serving.predictor import Predictor

Context = aio.ServicerContext[Any, Any]

# Strings of classes that are made in a millisecond; more are made in a thread.
_QUICK_STRINGS = 1_000

# With this in a stream's metadata an error ends it, as the call's status.
_ERRORS_AS_STATUS = ("triton_grpc_error", "true")

_TIMEOUT = "timeout"


class InferenceMethods:
    """Classifies images."""

    def __init__(
        self,
        *,
        models: Models,
        predictor: Predictor,
        limits: InputLimits,
        max_pending_per_stream: int,
    ) -> None:
        self._models = models
        self._predictor = predictor
        self._statistics = Statistics()
        self._limits = limits
        self._max_pending_per_stream = max_pending_per_stream
        self._streams: set[OrderedPipeline[Any, Any]] = set()
        self.is_stopping = False

    def stop(self) -> None:
        """Says that work should go elsewhere, and ends the streams."""
        self.is_stopping = True
        for stream in self._streams:
            stream.stop()

    async def ModelInfer(  # noqa: N802
        self, request: InferRequest, context: Context
    ) -> oip.ModelInferResponse:
        """Classifies images."""
        return await self._infer(request, context, wait_if_full=False)

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[InferRequest], context: Context
    ) -> AsyncIterator[oip.ModelStreamInferResponse]:
        """Classifies images for each request in turn."""
        errors_as_status = _ERRORS_AS_STATUS in tuple(context.invocation_metadata() or ())

        async def answer(request: InferRequest) -> oip.ModelStreamInferResponse:
            try:
                answered = await self._infer(request, context, wait_if_full=True)
            except ServiceError as error:
                if errors_as_status:
                    raise
                return _error_in_stream(request.message, error)
            return _answer_in_stream(answered)

        stream = OrderedPipeline(answer, max_in_flight=self._max_pending_per_stream)
        self._streams.add(stream)
        if self.is_stopping:
            stream.stop()
        try:
            async with aclosing(stream.responses(requests)) as answers:
                async for one in answers:
                    yield one
        finally:
            self._streams.discard(stream)

    async def _infer(
        self, asked: InferRequest, context: Context, *, wait_if_full: bool
    ) -> oip.ModelInferResponse:
        began = time.perf_counter_ns()
        request, contents = asked
        checkpoint = await self._models.find(
            request.model_name, request.model_version, version_field="model_version"
        )
        counts = self._statistics.of((checkpoint.model.job.job_id, checkpoint.epoch.epoch))
        try:
            wanted = wanted_outputs(request)
            read, is_quick = reader(request, contents, self._limits)
            timed = _Timed(read)
            scores = await self._predictor.predict(
                checkpoint,
                timed,
                seconds_left=_seconds_left(request, context),
                caller=context.peer(),
                run_inline=is_quick,
                wait_if_full=wait_if_full,
            )
            inferred = time.perf_counter_ns()
            answer = await _answer(request, checkpoint, wanted, scores)
        except Exception:
            counts.add_failure(time.perf_counter_ns() - began)
            raise
        counts.add_success(
            len(scores.logits),
            queue=timed.began - began,
            reading=timed.ended - timed.began,
            inference=inferred - timed.ended,
            answering=time.perf_counter_ns() - inferred,
        )
        return answer


class _Timed:
    """A call that notes when it was made."""

    __slots__ = ("_call", "began", "ended")

    def __init__(self, call: Callable[[], Pixels]) -> None:
        self._call = call
        self.began = 0
        self.ended = 0

    def __call__(self) -> Pixels:
        self.began = time.perf_counter_ns()
        pixels = self._call()
        self.ended = time.perf_counter_ns()
        return pixels


def _seconds_left(request: oip.ModelInferRequest, context: Context) -> float | None:
    # The stubs say float; without a deadline it is None.
    left: float | None = context.time_remaining()
    if request.parameters and _TIMEOUT in request.parameters:
        microseconds = parameter_number(request.parameters, _TIMEOUT, "parameters")
        if microseconds:  # 0 stands for none
            timeout = microseconds / 1e6
            return timeout if left is None else min(left, timeout)
    return left


async def _answer(
    request: oip.ModelInferRequest,
    checkpoint: CheckpointRef,
    wanted: tuple[Wanted, ...],
    scores: Scores,
) -> oip.ModelInferResponse:
    # Numbers are copied as they are; classes are named one by one.
    is_quick = scores.logits.size <= _QUICK_STRINGS or not any(one.classes for one in wanted)
    if is_quick:
        return response(request, checkpoint, wanted, scores)
    return await asyncio.to_thread(response, request, checkpoint, wanted, scores)


def _answer_in_stream(answered: oip.ModelInferResponse) -> oip.ModelStreamInferResponse:
    answered.parameters["triton_final_response"].bool_param = True
    return oip.ModelStreamInferResponse(infer_response=answered)


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
