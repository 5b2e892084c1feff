"""`leadline.v1.TrainingService`: convert, call, convert back."""

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from google.protobuf.empty_pb2 import Empty
from grpc import aio

from leadline.server.api.common_fields import to_interval, to_request_id, to_sequence
from leadline.server.api.jobs import (
    JobEventMessages,
    from_job,
    from_progress,
    to_options,
    to_states,
)
from leadline.server.api.names import parse_job, parse_sweep
from leadline.server.api.pages import PageTokens
from leadline.server.api.send_limiter import SendLimiter
from leadline.server.api.specs import to_spec
from leadline.server.api.sweeps import (
    from_sweep,
    from_sweep_event,
    from_sweep_progress,
    from_sweep_view,
    to_sweep_request,
)
from leadline.server.jobs.job import Event
from leadline.server.services.jobs import JobService, ProgressView
from leadline.server.services.sweeps import SweepService
from leadline.server.sweeps.sweep import SweepEvent, SweepProgress
from leadline.v1 import job_pb2, sweep_pb2, training_service_pb2_grpc
from leadline.v1 import training_service_pb2 as pb

Context = aio.ServicerContext[Any, Any]
AnyEvent = TypeVar("AnyEvent")
Message = TypeVar("Message")


class TrainingServicer(training_service_pb2_grpc.TrainingServiceServicer):
    """Submits, watches, lists and controls jobs and sweeps."""

    def __init__(self, jobs: JobService, sweeps: SweepService, tokens: PageTokens) -> None:
        self._jobs = jobs
        self._sweeps = sweeps
        self._tokens = tokens
        self._send_limiter = SendLimiter()
        self._job_messages = JobEventMessages()

    # Jobs

    async def TrainJob(  # noqa: N802
        self, request: pb.TrainJobRequest, context: Context
    ) -> AsyncIterator[job_pb2.JobEvent]:
        """Submits a job and watches it."""
        del context
        position = _position(request)
        job = await self._jobs.submit(
            to_spec(request.spec),
            to_options(request.options, self._jobs.default_retention),
            request_id=to_request_id(request.request_id),
        )
        async for message in self._watch_job(job.job_id, *position):
            yield message

    async def WatchJob(  # noqa: N802
        self, request: pb.WatchJobRequest, context: Context
    ) -> AsyncIterator[job_pb2.JobEvent]:
        """Watches a job."""
        del context
        position = _position(request)
        async for message in self._watch_job(parse_job(request.name), *position):
            yield message

    async def GetJob(  # noqa: N802
        self, request: pb.GetJobRequest, context: Context
    ) -> job_pb2.Job:
        """Returns a job."""
        del context
        return from_job(await self._jobs.get(parse_job(request.name)))

    async def ListJobs(  # noqa: N802
        self, request: pb.ListJobsRequest, context: Context
    ) -> pb.ListJobsResponse:
        """Lists jobs."""
        del context
        states = to_states(request.states)
        sweep_id = parse_sweep(request.sweep, field="sweep") if request.sweep else None
        page, token = await self._tokens.paginate(
            request,
            ["jobs", sorted(states), sweep_id],
            lambda before, limit: self._jobs.list_jobs(
                states=states, sweep_id=sweep_id, before=before, limit=limit
            ),
            cursor=lambda view: view.job.number,
        )
        return pb.ListJobsResponse(jobs=[from_job(view) for view in page], next_page_token=token)

    async def CancelJob(  # noqa: N802
        self, request: pb.CancelJobRequest, context: Context
    ) -> job_pb2.Job:
        """Cancels a job."""
        del context
        return from_job(await self._jobs.cancel(parse_job(request.name)))

    async def PauseJob(  # noqa: N802
        self, request: pb.PauseJobRequest, context: Context
    ) -> job_pb2.Job:
        """Pauses a job."""
        del context
        return from_job(await self._jobs.pause(parse_job(request.name)))

    async def ResumeJob(  # noqa: N802
        self, request: pb.ResumeJobRequest, context: Context
    ) -> job_pb2.Job:
        """Queues a paused job again."""
        del context
        return from_job(await self._jobs.resume(parse_job(request.name)))

    async def DeleteJob(  # noqa: N802
        self, request: pb.DeleteJobRequest, context: Context
    ) -> Empty:
        """Deletes a job and its model."""
        del context
        await self._jobs.delete(parse_job(request.name))
        return Empty()

    # Sweeps

    async def TrainSweep(  # noqa: N802
        self, request: pb.TrainSweepRequest, context: Context
    ) -> AsyncIterator[sweep_pb2.SweepEvent]:
        """Submits a sweep and watches it."""
        del context
        position = _position(request)
        sweep = await self._sweeps.submit(
            to_sweep_request(request, self._jobs.default_retention),
            request_id=to_request_id(request.request_id),
        )
        async for message in self._watch_sweep(sweep.sweep_id, *position):
            yield message

    async def WatchSweep(  # noqa: N802
        self, request: pb.WatchSweepRequest, context: Context
    ) -> AsyncIterator[sweep_pb2.SweepEvent]:
        """Watches a sweep."""
        del context
        position = _position(request)
        async for message in self._watch_sweep(parse_sweep(request.name), *position):
            yield message

    async def GetSweep(  # noqa: N802
        self, request: pb.GetSweepRequest, context: Context
    ) -> sweep_pb2.Sweep:
        """Returns a sweep."""
        del context
        return from_sweep_view(await self._sweeps.get(parse_sweep(request.name)))

    async def ListSweeps(  # noqa: N802
        self, request: pb.ListSweepsRequest, context: Context
    ) -> pb.ListSweepsResponse:
        """Lists sweeps."""
        del context
        page, token = await self._tokens.paginate(
            request,
            ["sweeps"],
            lambda before, limit: self._sweeps.list_sweeps(before=before, limit=limit),
            cursor=lambda sweep: sweep.number,
        )
        return pb.ListSweepsResponse(
            sweeps=[from_sweep(sweep) for sweep in page], next_page_token=token
        )

    async def CancelSweep(  # noqa: N802
        self, request: pb.CancelSweepRequest, context: Context
    ) -> sweep_pb2.Sweep:
        """Cancels a sweep."""
        del context
        return from_sweep_view(await self._sweeps.cancel(parse_sweep(request.name)))

    async def PauseSweep(  # noqa: N802
        self, request: pb.PauseSweepRequest, context: Context
    ) -> sweep_pb2.Sweep:
        """Pauses a sweep."""
        del context
        return from_sweep_view(await self._sweeps.pause(parse_sweep(request.name)))

    async def ResumeSweep(  # noqa: N802
        self, request: pb.ResumeSweepRequest, context: Context
    ) -> sweep_pb2.Sweep:
        """Queues a paused sweep again."""
        del context
        return from_sweep_view(await self._sweeps.resume(parse_sweep(request.name)))

    async def DeleteSweep(  # noqa: N802
        self, request: pb.DeleteSweepRequest, context: Context
    ) -> Empty:
        """Deletes a sweep, its jobs and their models."""
        del context
        await self._sweeps.delete(parse_sweep(request.name))
        return Empty()

    # Streams

    def _watch_job(
        self, job_id: str, after_sequence: int, interval: float | None
    ) -> AsyncIterator[job_pb2.JobEvent]:
        events = self._jobs.watch(job_id, after_sequence=after_sequence, progress_interval=interval)
        return self._send(events, self._job_message)

    def _watch_sweep(
        self, sweep_id: str, after_sequence: int, interval: float | None
    ) -> AsyncIterator[sweep_pb2.SweepEvent]:
        events = self._sweeps.watch(
            sweep_id, after_sequence=after_sequence, progress_interval=interval
        )
        return self._send(events, self._sweep_message)

    async def _send(
        self, events: AsyncIterator[AnyEvent], convert: Callable[[AnyEvent], Message]
    ) -> AsyncIterator[Message]:
        """The messages of a stream, sent in turn with those of other streams."""
        async for event in events:
            message = convert(event)
            async with self._send_limiter.slot():
                yield message
        await self._send_limiter.wait_to_close()

    def _job_message(self, event: Event | ProgressView) -> job_pb2.JobEvent:
        return self._job_messages.get(event) if isinstance(event, Event) else from_progress(event)

    def _sweep_message(self, event: SweepEvent | SweepProgress) -> sweep_pb2.SweepEvent:
        if isinstance(event, SweepProgress):
            return from_sweep_progress(event)
        return from_sweep_event(event, self._job_messages.get)


def _position(
    request: pb.TrainJobRequest | pb.WatchJobRequest | pb.TrainSweepRequest | pb.WatchSweepRequest,
) -> tuple[int, float | None]:
    """After which event a stream begins, and the seconds between its progress events."""
    return to_sequence(request.after_sequence), to_interval(
        request.progress_interval, request.HasField("progress_interval")
    )
