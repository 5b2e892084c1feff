"""Jobs and their events: request to value, value to message."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from leadline.models.metrics import BlockDiagnosis
from leadline.server.api.common_fields import from_datetime, from_seconds, to_seconds
from leadline.server.api.specs import from_spec
from leadline.server.errors import InvalidArgumentError
from leadline.server.jobs.job import (
    Cancellation,
    Environment,
    EpochCompleted,
    Event,
    Failure,
    Finished,
    Hold,
    Job,
    Paused,
    Progress,
    Queued,
    Resumed,
    Started,
)
from leadline.server.jobs.options import JobOptions, Retention, RetentionPolicy
from leadline.server.jobs.states import JobState
from leadline.server.services.jobs import JobView, ProgressView
from leadline.v1 import job_pb2

AnyEvent = TypeVar("AnyEvent")
AnyMessage = TypeVar("AnyMessage")

# Cached messages, for other watchers of the same jobs.
_CACHED_MESSAGES = 256

STATES: dict[JobState, job_pb2.JobState.ValueType] = {
    JobState.QUEUED: job_pb2.JOB_STATE_QUEUED,
    JobState.RUNNING: job_pb2.JOB_STATE_RUNNING,
    JobState.SUCCEEDED: job_pb2.JOB_STATE_SUCCEEDED,
    JobState.FAILED: job_pb2.JOB_STATE_FAILED,
    JobState.CANCELLED: job_pb2.JOB_STATE_CANCELLED,
    JobState.PAUSED: job_pb2.JOB_STATE_PAUSED,
}
_STATE_OF = {number: state for state, number in STATES.items()}

_POLICIES: dict[RetentionPolicy, job_pb2.RetentionPolicy.ValueType] = {
    RetentionPolicy.ALL: job_pb2.RETENTION_POLICY_ALL,
    RetentionPolicy.BEST_AND_LAST: job_pb2.RETENTION_POLICY_BEST_AND_LAST,
    RetentionPolicy.EVERY_NTH: job_pb2.RETENTION_POLICY_EVERY_NTH,
}
_POLICY_OF = {number: policy for policy, number in _POLICIES.items()}

_PHASES: dict[str, job_pb2.JobPhase.ValueType] = {
    "queued": job_pb2.JOB_PHASE_QUEUED,
    "starting": job_pb2.JOB_PHASE_STARTING,
    "paused": job_pb2.JOB_PHASE_PAUSED,
    "preparing_dataset": job_pb2.JOB_PHASE_PREPARING_DATASET,
    "training": job_pb2.JOB_PHASE_TRAINING,
    "evaluating": job_pb2.JOB_PHASE_EVALUATING,
}


def to_states(numbers: Sequence[int]) -> list[JobState]:
    """The states that a request lists, each once.

    Raises:
        InvalidArgumentError: a state is unknown.
    """
    for index, number in enumerate(numbers):
        if number not in _STATE_OF:
            known = ", ".join(job_pb2.JobState.Name(value) for value in STATES.values())
            raise InvalidArgumentError.of(
                f"states[{index}]", f"is {number}, but must be one of {known}"
            )
    return [_STATE_OF[job_pb2.JobState.ValueType(number)] for number in dict.fromkeys(numbers)]


def to_options(message: job_pb2.JobOptions, default: Retention) -> JobOptions:
    """The options, their unset fields filled with the defaults.

    Raises:
        InvalidArgumentError: the retention policy is unknown.
    """
    return JobOptions(
        priority=message.priority,
        time_limit=to_seconds(message.time_limit) if message.HasField("time_limit") else None,
        retention=_to_retention(message.retention, default),
    )


def _to_retention(message: job_pb2.Retention, default: Retention) -> Retention:
    if message.policy == job_pb2.RETENTION_POLICY_UNSPECIFIED and not message.every_nth:
        return default
    if message.policy == job_pb2.RETENTION_POLICY_UNSPECIFIED:
        raise InvalidArgumentError.of(
            "options.retention.policy",
            "is unset, but every_nth is set: set it to RETENTION_POLICY_EVERY_NTH",
        )
    if message.policy not in _POLICY_OF:
        raise InvalidArgumentError.of(
            "options.retention.policy", f"is {message.policy}, which this server does not know"
        )
    return Retention(policy=_POLICY_OF[message.policy], every_nth=message.every_nth)


def from_options(options: JobOptions) -> job_pb2.JobOptions:
    """The options with every field set."""
    return job_pb2.JobOptions(
        priority=options.priority,
        time_limit=from_seconds(options.time_limit),
        retention=job_pb2.Retention(
            policy=_POLICIES[options.retention.policy], every_nth=options.retention.every_nth
        ),
    )


def from_job(view: JobView) -> job_pb2.Job:
    """The job's current state."""
    job = view.job
    return job_pb2.Job(
        name=f"jobs/{job.job_id}",
        owner=job.owner,
        spec=from_spec(job.spec),
        state=STATES[job.state],
        create_time=from_datetime(job.create_time),
        start_time=from_datetime(job.start_time),
        end_time=from_datetime(job.end_time),
        completed_epochs=job.completed_epochs,
        best_epoch=job.best_epoch,
        best_test_accuracy=job.best_test_accuracy,
        latest_epoch=from_epoch(job.job_id, job.latest_epoch) if job.latest_epoch else None,
        model=_model_name(job.job_id, job.completed_epochs),
        failure=_failure(job.failure),
        device=job.device,
        attempts=job.attempts,
        latest_sequence=job.latest_sequence,
        queue_position=view.queue_position,
        options=from_options(job.options),
        deadline=from_datetime(job.deadline),
        pause=_paused(job.pause) if job.pause else None,
        environment=_environment(job.environment) if job.environment else None,
        sweep=f"sweeps/{job.sweep_id}" if job.sweep_id else "",
        cancellation=_cancellation(job.cancellation),
        hold=_hold(view.hold),
    )


class EventMessages(Generic[AnyEvent, AnyMessage]):
    """Events as messages, each converted once for all watchers."""

    def __init__(
        self,
        convert: Callable[[AnyEvent], AnyMessage],
        key: Callable[[AnyEvent], tuple[str, int]],
        *,
        size: int = _CACHED_MESSAGES,
    ) -> None:
        """Makes an empty cache of `size` messages; the oldest are evicted."""
        self._convert = convert
        self._key = key
        self._size = size
        self._messages: OrderedDict[tuple[str, int], AnyMessage] = OrderedDict()

    def get(self, event: AnyEvent) -> AnyMessage:
        """The message of an event; do not modify it, because other watchers share the object."""
        key = self._key(event)
        message = self._messages.get(key)
        if message is None:
            message = self._messages[key] = self._convert(event)
            if len(self._messages) > self._size:
                self._messages.popitem(last=False)
        return message


def job_event_messages(size: int = _CACHED_MESSAGES) -> EventMessages[Event, job_pb2.JobEvent]:
    """The messages of job events, for watchers of jobs and sweeps."""
    return EventMessages(from_event, lambda event: (event.job_id, event.sequence), size=size)


def from_event(event: Event) -> job_pb2.JobEvent:
    """A durable event."""
    message = job_pb2.JobEvent(
        sequence=event.sequence,
        job=f"jobs/{event.job_id}",
        create_time=from_datetime(event.create_time),
    )
    match event.body:
        case Queued() as body:
            message.queued.MergeFrom(
                job_pb2.JobQueued(spec=from_spec(body.spec), queue_position=body.queue_position)
            )
        case Started() as body:
            message.started.MergeFrom(_from_started(body))
        case EpochCompleted() as body:
            message.epoch.MergeFrom(from_epoch(event.job_id, body))
        case Paused() as body:
            message.paused.MergeFrom(_paused(body))
        case Resumed() as body:
            message.resumed.SetInParent()
            message.resumed.MergeFrom(
                job_pb2.JobResumed(
                    completed_epochs=body.completed_epochs, queue_position=body.queue_position
                )
            )
        case Finished() as body:
            message.finished.MergeFrom(_from_finished(event.job_id, body))
    return message


def from_progress(view: ProgressView) -> job_pb2.JobEvent:
    """A transient event, which has no sequence."""
    message = job_pb2.JobEvent(
        job=f"jobs/{view.job.job_id}",
        progress=job_progress(
            view.job,
            view.progress,
            queue_position=view.queue_position,
            hold=view.hold,
            seconds_left=view.seconds_left,
        ),
    )
    message.create_time.GetCurrentTime()
    return message


def job_progress(
    job: Job,
    progress: Progress,
    *,
    queue_position: int = 0,
    hold: Hold | None = None,
    seconds_left: float | None,
) -> job_pb2.JobProgress:
    """The transient progress of a job."""
    return job_pb2.JobProgress(
        phase=_PHASES.get(progress.phase, job_pb2.JOB_PHASE_UNSPECIFIED),
        epoch=progress.epoch,
        completed_images=progress.completed_images,
        total_images=progress.total_images,
        queue_position=queue_position,
        attempts=job.attempts,
        time_left=from_seconds(seconds_left),
        hold=_hold(hold),
    )


def from_epoch(job_id: str, epoch: EpochCompleted) -> job_pb2.EpochResult:
    """The metrics of an epoch, and the name of its checkpoint."""
    return job_pb2.EpochResult(
        epoch=epoch.epoch,
        train_loss=epoch.train_loss,
        train_accuracy=epoch.train_accuracy,
        test_accuracy=epoch.test_accuracy,
        learning_rate=epoch.learning_rate,
        seconds=epoch.seconds,
        images_per_second=epoch.images_per_second,
        test_loss=epoch.test_loss,
        model=f"models/{job_id}/epochs/{epoch.epoch}",
        weights_sha256=epoch.weights_sha256,
        diagnosis=_from_diagnosis(epoch.diagnosis),
    )


def _from_started(started: Started) -> job_pb2.JobStarted:
    return job_pb2.JobStarted(
        device=started.device,
        device_name=started.device_name,
        train_images=started.train_images,
        test_images=started.test_images,
        class_names=started.class_names,
        parameters=started.parameters,
        dataset_fingerprint=started.dataset_fingerprint,
        environment=_environment(started.environment),
        diagnosis=_from_diagnosis(started.diagnosis),
    )


def _from_diagnosis(diagnosis: tuple[BlockDiagnosis, ...]) -> list[job_pb2.BlockDiagnosis]:
    return [
        job_pb2.BlockDiagnosis(
            block=block.block,
            activation_std=block.activation_std,
            gradient_norm=block.gradient_norm,
        )
        for block in diagnosis
    ]


def _environment(environment: Environment) -> job_pb2.JobEnvironment:
    return job_pb2.JobEnvironment(
        threads=environment.threads,
        leadline_version=environment.leadline_version,
        torch_version=environment.torch_version,
        python_version=environment.python_version,
        instruction_set=environment.instruction_set,
    )


def _paused(pause: Paused) -> job_pb2.JobPaused:
    return job_pb2.JobPaused(reason=pause.reason, message=pause.message)


def _from_finished(job_id: str, finished: Finished) -> job_pb2.JobFinished:
    return job_pb2.JobFinished(
        state=STATES[finished.state],
        best_epoch=finished.best_epoch,
        best_test_accuracy=finished.best_test_accuracy,
        model=_model_name(job_id, finished.completed_epochs),
        failure=_failure(finished.failure),
        completed_epochs=finished.completed_epochs,
        cancellation=_cancellation(finished.cancellation),
        stopped_early=finished.stopped_early,
    )


def _failure(failure: Failure | None) -> job_pb2.JobFailure | None:
    if failure is None:
        return None
    return job_pb2.JobFailure(reason=failure.reason, message=failure.message)


def _hold(hold: Hold | None) -> job_pb2.JobHold | None:
    if hold is None:
        return None
    return job_pb2.JobHold(reason=hold.reason, message=hold.message)


def _cancellation(cancellation: Cancellation | None) -> job_pb2.JobCancellation | None:
    if cancellation is None:
        return None
    return job_pb2.JobCancellation(reason=cancellation.reason, message=cancellation.message)


def _model_name(job_id: str, completed_epochs: int) -> str:
    return f"models/{job_id}" if completed_epochs else ""
