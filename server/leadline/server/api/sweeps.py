"""The part of `leadline.v1.TrainingService` that is about sweeps."""

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.empty_pb2 import Empty
from grpc import aio

from leadline.server.api.following import read_interval, read_request_id, read_sequence
from leadline.server.api.names import parse_sweep
from leadline.server.api.pages import PageTokens, page_size
from leadline.server.api.send_limiter import SendLimiter
from leadline.server.api.sweep_messages import (
    from_sweep,
    from_sweep_event,
    from_sweep_progress,
    from_sweep_view,
    to_sweep_request,
)
from leadline.server.jobs.options import Retention
from leadline.server.services.sweeps import SweepService
from leadline.server.sweeps.sweep import SweepEvent
from leadline.v1 import sweep_pb2, training_service_pb2, training_service_pb2_grpc

Context = aio.ServicerContext[Any, Any]

_DEFAULT_PAGE_SIZE = 50


class SweepMethods(training_service_pb2_grpc.TrainingServiceServicer):
    """Submits, follows, lists and steers sweeps."""

    def __init__(
        self,
        sweeps: SweepService,
        tokens: PageTokens,
        *,
        send_limiter: SendLimiter,
        default_retention: Retention,
    ) -> None:
        self._sweeps = sweeps
        self._sweep_tokens = tokens
        self._sweep_send_limiter = send_limiter
        self._default_retention = default_retention

    async def TrainSweep(  # noqa: N802
        self, request: training_service_pb2.TrainSweepRequest, context: Context
    ) -> AsyncIterator[sweep_pb2.SweepEvent]:
        """Submits a sweep and follows it."""
        del context
        after_sequence = read_sequence(request.after_sequence)
        interval = read_interval(request.progress_interval, request.HasField("progress_interval"))
        sweep = await self._sweeps.submit(
            to_sweep_request(request, self._default_retention),
            request_id=read_request_id(request.request_id),
        )
        async for message in self._follow_sweep(sweep.sweep_id, after_sequence, interval):
            yield message

    async def WatchSweep(  # noqa: N802
        self, request: training_service_pb2.WatchSweepRequest, context: Context
    ) -> AsyncIterator[sweep_pb2.SweepEvent]:
        """Follows a sweep."""
        del context
        after_sequence = read_sequence(request.after_sequence)
        interval = read_interval(request.progress_interval, request.HasField("progress_interval"))
        async for message in self._follow_sweep(
            parse_sweep(request.name), after_sequence, interval
        ):
            yield message

    async def GetSweep(  # noqa: N802
        self, request: training_service_pb2.GetSweepRequest, context: Context
    ) -> sweep_pb2.Sweep:
        """Returns a sweep."""
        del context
        return from_sweep_view(await self._sweeps.get(parse_sweep(request.name)))

    async def ListSweeps(  # noqa: N802
        self, request: training_service_pb2.ListSweepsRequest, context: Context
    ) -> training_service_pb2.ListSweepsResponse:
        """Lists sweeps."""
        del context
        size = page_size(request.page_size, default=_DEFAULT_PAGE_SIZE)
        query = ["sweeps"]
        before = self._sweep_tokens.read(query, request.page_token)
        found = await self._sweeps.list_sweeps(before=before, limit=size + 1)
        page, token = self._sweep_tokens.cut(
            query, found, size, position=lambda sweep: sweep.number
        )
        return training_service_pb2.ListSweepsResponse(
            sweeps=[from_sweep(sweep) for sweep in page],
            next_page_token=token,
        )

    async def CancelSweep(  # noqa: N802
        self, request: training_service_pb2.CancelSweepRequest, context: Context
    ) -> sweep_pb2.Sweep:
        """Cancels a sweep."""
        del context
        return from_sweep_view(await self._sweeps.cancel(parse_sweep(request.name)))

    async def PauseSweep(  # noqa: N802
        self, request: training_service_pb2.PauseSweepRequest, context: Context
    ) -> sweep_pb2.Sweep:
        """Sets a sweep aside."""
        del context
        return from_sweep_view(await self._sweeps.pause(parse_sweep(request.name)))

    async def ResumeSweep(  # noqa: N802
        self, request: training_service_pb2.ResumeSweepRequest, context: Context
    ) -> sweep_pb2.Sweep:
        """Queues a paused sweep again."""
        del context
        return from_sweep_view(await self._sweeps.resume(parse_sweep(request.name)))

    async def DeleteSweep(  # noqa: N802
        self, request: training_service_pb2.DeleteSweepRequest, context: Context
    ) -> Empty:
        """Deletes a sweep, its jobs and their models."""
        del context
        await self._sweeps.delete(parse_sweep(request.name))
        return Empty()

    async def _follow_sweep(
        self, sweep_id: str, after_sequence: int, interval: float | None
    ) -> AsyncIterator[sweep_pb2.SweepEvent]:
        news = self._sweeps.watch(
            sweep_id, after_sequence=after_sequence, progress_interval=interval
        )
        async for one in news:
            message = (
                from_sweep_event(one) if isinstance(one, SweepEvent) else from_sweep_progress(one)
            )
            async with self._sweep_send_limiter.slot():
                yield message
        await self._sweep_send_limiter.wait_to_close()
