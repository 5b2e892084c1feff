"""`leadline.v1.TrainingService`."""

from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.empty_pb2 import Empty
from grpc import aio

from leadline.server.api.convert import (
    STATE_OF,
    STATES,
    from_event,
    from_job,
    from_progress,
    to_options,
    to_spec,
)
from leadline.server.api.following import read_interval, read_request_id, read_sequence
from leadline.server.api.names import parse_job, parse_sweep
from leadline.server.api.pages import PageTokens, page_size
from leadline.server.api.send_limiter import SendLimiter
from leadline.server.api.sweeps import SweepMethods
from leadline.server.errors import InvalidArgumentError
from leadline.server.jobs.job import Event
from leadline.server.jobs.states import JobState
from leadline.server.services.jobs import JobService
from leadline.server.services.sweeps import SweepService
from leadline.v1 import job_pb2, training_service_pb2

Context = aio.ServicerContext[Any, Any]

_DEFAULT_PAGE_SIZE = 50
# Events as messages, for those who watch the same jobs.
_MESSAGES_AT_HAND = 256


class TrainingServicer(SweepMethods):
    """Submits, follows, lists and steers jobs; and sweeps, as it inherits it."""

    def __init__(self, jobs: JobService, sweeps: SweepService, tokens: PageTokens) -> None:
        send_limiter = SendLimiter()
        super().__init__(
            sweeps, tokens, send_limiter=send_limiter, default_retention=jobs.default_retention
        )
        self._jobs = jobs
        self._tokens = tokens
        self._send_limiter = send_limiter
        self._messages: OrderedDict[tuple[str, int], job_pb2.JobEvent] = OrderedDict()

    async def TrainJob(  # noqa: N802
        self, request: training_service_pb2.TrainJobRequest, context: Context
    ) -> AsyncIterator[job_pb2.JobEvent]:
        """Submits a job and follows it."""
        del context
        after_sequence = read_sequence(request.after_sequence)
        interval = read_interval(request.progress_interval, request.HasField("progress_interval"))
        job = await self._jobs.submit(
            to_spec(request.spec),
            to_options(request.options, self._jobs.default_retention),
            request_id=read_request_id(request.request_id),
        )
        async for message in self._follow(job.job_id, after_sequence, interval):
            yield message

    async def WatchJob(  # noqa: N802
        self, request: training_service_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[job_pb2.JobEvent]:
        """Follows a job."""
        del context
        after_sequence = read_sequence(request.after_sequence)
        interval = read_interval(request.progress_interval, request.HasField("progress_interval"))
        async for message in self._follow(parse_job(request.name), after_sequence, interval):
            yield message

    async def GetJob(  # noqa: N802
        self, request: training_service_pb2.GetJobRequest, context: Context
    ) -> job_pb2.Job:
        """Returns a job."""
        del context
        return from_job(await self._jobs.get(parse_job(request.name)))

    async def ListJobs(  # noqa: N802
        self, request: training_service_pb2.ListJobsRequest, context: Context
    ) -> training_service_pb2.ListJobsResponse:
        """Lists jobs."""
        del context
        size = page_size(request.page_size, default=_DEFAULT_PAGE_SIZE)
        states = [_state(number, index) for index, number in enumerate(request.states)]
        sweep_id = parse_sweep(request.sweep, field="sweep") if request.sweep else None
        query = ["jobs", sorted(states), sweep_id]
        before = self._tokens.read(query, request.page_token)
        views = await self._jobs.list_jobs(
            states=states, sweep_id=sweep_id, before=before, limit=size + 1
        )
        page, token = self._tokens.cut(query, views, size, position=lambda view: view.job.number)
        return training_service_pb2.ListJobsResponse(
            jobs=[from_job(view) for view in page],
            next_page_token=token,
        )

    async def CancelJob(  # noqa: N802
        self, request: training_service_pb2.CancelJobRequest, context: Context
    ) -> job_pb2.Job:
        """Cancels a job."""
        del context
        return from_job(await self._jobs.cancel(parse_job(request.name)))

    async def PauseJob(  # noqa: N802
        self, request: training_service_pb2.PauseJobRequest, context: Context
    ) -> job_pb2.Job:
        """Sets a job aside."""
        del context
        return from_job(await self._jobs.pause(parse_job(request.name)))

    async def ResumeJob(  # noqa: N802
        self, request: training_service_pb2.ResumeJobRequest, context: Context
    ) -> job_pb2.Job:
        """Queues a paused job again."""
        del context
        return from_job(await self._jobs.resume(parse_job(request.name)))

    async def DeleteJob(  # noqa: N802
        self, request: training_service_pb2.DeleteJobRequest, context: Context
    ) -> Empty:
        """Deletes a job and its model."""
        del context
        await self._jobs.delete(parse_job(request.name))
        return Empty()

    async def _follow(
        self, job_id: str, after_sequence: int, interval: float | None
    ) -> AsyncIterator[job_pb2.JobEvent]:
        news = self._jobs.watch(job_id, after_sequence=after_sequence, progress_interval=interval)
        async for one in news:
            message = self._message(one) if isinstance(one, Event) else from_progress(one)
            async with self._send_limiter.slot():
                yield message
        await self._send_limiter.wait_to_close()

    def _message(self, event: Event) -> job_pb2.JobEvent:
        """An event as it is sent: to a thousand watchers, and converted once."""
        key = (event.job_id, event.sequence)
        message = self._messages.get(key)
        if message is None:
            message = self._messages[key] = from_event(event)
            if len(self._messages) > _MESSAGES_AT_HAND:
                self._messages.popitem(last=False)
        return message


def _state(number: int, index: int) -> JobState:
    state = STATE_OF.get(job_pb2.JobState.ValueType(number))
    if state is None:
        known = ", ".join(job_pb2.JobState.Name(value) for value in STATES.values())
        raise InvalidArgumentError.of(
            f"states[{index}]", f"is {number}, but must be one of {known}"
        )
    return state
