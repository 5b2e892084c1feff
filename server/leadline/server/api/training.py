"""`leadline.v1.TrainingService`: convert, call, convert back."""

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from typing import Any, TypedDict, TypeVar

from google.protobuf.empty_pb2 import Empty
from grpc import aio

from leadline.server.api.common_fields import (
    identity_of,
    to_interval,
    to_owner,
    to_request_id,
    to_sequence,
)
from leadline.server.api.jobs import (
    EventMessages,
    from_job,
    from_progress,
    job_event_messages,
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
from leadline.server.services.jobs import JobService, JobView, ProgressView
from leadline.server.services.quotas import QuotaService, QuotaUse
from leadline.server.services.sweeps import SweepService
from leadline.server.services.usage import JobUsage, SharedUsage, UsageService
from leadline.server.sweeps.sweep import Sweep, SweepEvent, SweepProgress
from leadline.v1 import job_pb2, sweep_pb2, training_service_pb2_grpc
from leadline.v1 import training_service_pb2 as pb

Context = aio.ServicerContext[Any, Any]
AnyEvent = TypeVar("AnyEvent")
Message = TypeVar("Message")

# Jobs a page of disk usage: each may have 10,000 files.
_MAX_USAGES = 100


class _Position(TypedDict):
    """The event after which a stream begins, and the seconds between its progress events."""

    after_sequence: int
    progress_interval: float | None


class TrainingServicer(training_service_pb2_grpc.TrainingServiceServicer):
    """Submits, watches, lists and controls jobs and sweeps."""

    def __init__(
        self,
        *,
        jobs: JobService,
        sweeps: SweepService,
        usage: UsageService,
        quotas: QuotaService,
        tokens: PageTokens,
    ) -> None:
        self._jobs = jobs
        self._sweeps = sweeps
        self._usage = usage
        self._quotas = quotas
        self._tokens = tokens
        self._send_limiter = SendLimiter()
        self._job_messages = job_event_messages()
        # An event of the sweep itself lists its jobs, up to a thousand.
        self._sweep_messages = EventMessages[SweepEvent, sweep_pb2.SweepEvent](
            lambda event: from_sweep_event(event, self._job_messages.get),
            lambda event: (event.sweep_id, event.sequence),
        )

    # Jobs

    async def TrainJob(
        self, request: pb.TrainJobRequest, context: Context
    ) -> AsyncIterator[job_pb2.JobEvent]:
        """Submits a job and watches it."""
        position = _position(request)
        job = await self._jobs.submit(
            to_spec(request.spec),
            to_options(request.options, self._jobs.default_retention),
            request_id=to_request_id(request.request_id),
            identity=identity_of(context),
        )
        async for message in self._send(
            self._jobs.watch(job.job_id, **position), self._job_message
        ):
            yield message

    async def WatchJob(
        self, request: pb.WatchJobRequest, context: Context
    ) -> AsyncIterator[job_pb2.JobEvent]:
        """Watches a job."""
        events = self._jobs.watch(parse_job(request.name), **_position(request))
        async for message in self._send(events, self._job_message):
            yield message

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> job_pb2.Job:
        """Returns a job."""
        return from_job(await self._jobs.get(parse_job(request.name)))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """Lists jobs."""
        states = to_states(request.states)
        sweep_id = parse_sweep(request.sweep, field="sweep") if request.sweep else None
        owner = to_owner(request.owner, context)
        page = self._tokens.page(request, ["jobs", sorted(states), sweep_id, owner])

        def respond(jobs: Iterable[JobView]) -> pb.ListJobsResponse:
            messages, token = page.fill(jobs, from_job, cursor=lambda view: view.job.number)
            return pb.ListJobsResponse(jobs=messages, next_page_token=token)

        return await self._jobs.list_jobs(
            respond,
            states=states,
            sweep_id=sweep_id,
            owner=owner,
            before=page.after,
            limit=page.size + 1,
            caller=context.peer(),
        )

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> job_pb2.Job:
        """Cancels a job."""
        return from_job(await self._jobs.cancel(parse_job(request.name), identity_of(context)))

    async def PauseJob(self, request: pb.PauseJobRequest, context: Context) -> job_pb2.Job:
        """Pauses a job."""
        return from_job(await self._jobs.pause(parse_job(request.name), identity_of(context)))

    async def ResumeJob(self, request: pb.ResumeJobRequest, context: Context) -> job_pb2.Job:
        """Queues a paused job again."""
        return from_job(await self._jobs.resume(parse_job(request.name), identity_of(context)))

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Context) -> Empty:
        """Deletes a job and its model."""
        await self._jobs.delete(parse_job(request.name), identity_of(context))
        return Empty()

    async def ListDiskUsage(
        self, request: pb.ListDiskUsageRequest, context: Context
    ) -> pb.ListDiskUsageResponse:
        """Lists the space of jobs."""
        page = self._tokens.page(request, ["disk usage"])
        page = replace(page, size=min(page.size, _MAX_USAGES))

        def respond(jobs: Iterable[JobUsage], shared: SharedUsage) -> pb.ListDiskUsageResponse:
            messages, token = page.fill(jobs, _from_usage, cursor=lambda usage: usage.number)
            return pb.ListDiskUsageResponse(
                jobs=messages,
                next_page_token=token,
                database_bytes=shared.database,
                datasets_bytes=shared.datasets,
                free_bytes=shared.free,
                floor_bytes=shared.floor,
            )

        return await self._usage.list_usage(
            respond, before=page.after, limit=page.size + 1, caller=context.peer()
        )

    # Sweeps

    async def TrainSweep(
        self, request: pb.TrainSweepRequest, context: Context
    ) -> AsyncIterator[sweep_pb2.SweepEvent]:
        """Submits a sweep and watches it."""
        position = _position(request)
        sweep = await self._sweeps.submit(
            to_sweep_request(request, self._jobs.default_retention),
            request_id=to_request_id(request.request_id),
            identity=identity_of(context),
            caller=context.peer(),
        )
        async for message in self._send(
            self._sweeps.watch(sweep.sweep_id, **position), self._sweep_message
        ):
            yield message

    async def WatchSweep(
        self, request: pb.WatchSweepRequest, context: Context
    ) -> AsyncIterator[sweep_pb2.SweepEvent]:
        """Watches a sweep."""
        events = self._sweeps.watch(parse_sweep(request.name), **_position(request))
        async for message in self._send(events, self._sweep_message):
            yield message

    async def GetSweep(self, request: pb.GetSweepRequest, context: Context) -> sweep_pb2.Sweep:
        """Returns a sweep."""
        sweep_id = parse_sweep(request.name)
        return await self._sweeps.get(from_sweep_view, sweep_id, caller=context.peer())

    async def ListSweeps(
        self, request: pb.ListSweepsRequest, context: Context
    ) -> pb.ListSweepsResponse:
        """Lists sweeps."""
        owner = to_owner(request.owner, context)
        page = self._tokens.page(request, ["sweeps", owner])

        def respond(sweeps: Iterable[Sweep]) -> pb.ListSweepsResponse:
            messages, token = page.fill(sweeps, from_sweep, cursor=lambda sweep: sweep.number)
            return pb.ListSweepsResponse(sweeps=messages, next_page_token=token)

        return await self._sweeps.list_sweeps(
            respond, owner=owner, before=page.after, limit=page.size + 1, caller=context.peer()
        )

    async def CancelSweep(
        self, request: pb.CancelSweepRequest, context: Context
    ) -> sweep_pb2.Sweep:
        """Cancels a sweep."""
        return await self._sweeps.cancel(
            from_sweep_view, parse_sweep(request.name), identity_of(context)
        )

    async def PauseSweep(self, request: pb.PauseSweepRequest, context: Context) -> sweep_pb2.Sweep:
        """Pauses a sweep."""
        return await self._sweeps.pause(
            from_sweep_view, parse_sweep(request.name), identity_of(context)
        )

    async def ResumeSweep(
        self, request: pb.ResumeSweepRequest, context: Context
    ) -> sweep_pb2.Sweep:
        """Queues a paused sweep again."""
        return await self._sweeps.resume(
            from_sweep_view, parse_sweep(request.name), identity_of(context)
        )

    async def DeleteSweep(self, request: pb.DeleteSweepRequest, context: Context) -> Empty:
        """Deletes a sweep, its jobs and their models."""
        await self._sweeps.delete(parse_sweep(request.name), identity_of(context))
        return Empty()

    # Quotas

    async def GetQuota(self, request: pb.GetQuotaRequest, context: Context) -> pb.Quota:
        """Returns the limits of an identity, and their use."""
        view = await self._quotas.get(request.identity, identity_of(context))
        return pb.Quota(
            identity=view.name,
            limits=[_from_quota_use(use) for use in view.limits],
            total=[_from_quota_use(use) for use in view.total],
        )

    # Streams

    async def _send(
        self, events: AsyncIterator[AnyEvent], convert: Callable[[AnyEvent], Message]
    ) -> AsyncIterator[Message]:
        """Yields the messages of a stream, in turns with other streams."""
        await self._send_limiter.turn()
        async for event in events:
            message = convert(event)
            await self._send_limiter.turn()
            yield message
        await self._send_limiter.turn()

    def _job_message(self, event: Event | ProgressView) -> job_pb2.JobEvent:
        return self._job_messages.get(event) if isinstance(event, Event) else from_progress(event)

    def _sweep_message(self, event: SweepEvent | SweepProgress) -> sweep_pb2.SweepEvent:
        if isinstance(event, SweepProgress):
            return from_sweep_progress(event)
        return self._sweep_messages.get(event)


def _position(
    request: pb.TrainJobRequest | pb.WatchJobRequest | pb.TrainSweepRequest | pb.WatchSweepRequest,
) -> _Position:
    has_interval = request.HasField("progress_interval")
    return _Position(
        after_sequence=to_sequence(request.after_sequence),
        progress_interval=to_interval(request.progress_interval, has_interval),
    )


def _from_quota_use(use: QuotaUse) -> pb.QuotaLimit:
    return pb.QuotaLimit(quota=use.quota, limit=use.limit, used=use.used)


def _from_usage(usage: JobUsage) -> pb.JobDiskUsage:
    return pb.JobDiskUsage(
        job=f"jobs/{usage.job_id}",
        checkpoints=usage.files.checkpoints,
        weights_bytes=usage.files.weights,
        predictions_bytes=usage.files.predictions,
        optimizer_bytes=usage.files.optimizer,
        other_bytes=usage.files.other,
    )
