"""Between the contract's messages and the domain's values."""

import functools
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, get_args

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from leadline.models.metrics import BlockDiagnosis
from leadline.models.spec import (
    Augmentation,
    Initialization,
    Optimizer,
    Precision,
    Schedule,
    TrainingSpec,
)
from leadline.server.errors import InvalidArgumentError
from leadline.server.jobs.job import (
    Cancellation,
    Environment,
    EpochCompleted,
    Event,
    Failure,
    Finished,
    Job,
    Model,
    Paused,
    Progress,
    Queued,
    Resumed,
    Started,
)
from leadline.server.jobs.options import JobOptions, Retention, RetentionPolicy
from leadline.server.jobs.states import JobState
from leadline.server.services.jobs import JobView, ProgressView
from leadline.v1 import job_pb2, model_pb2, training_spec_pb2

# The fields of a spec that are enums, and the values that their numbers stand for.
_SPEC_ENUMS: dict[str, dict[int, StrEnum]] = {
    "optimizer": {
        training_spec_pb2.OPTIMIZER_SGD: Optimizer.SGD,
        training_spec_pb2.OPTIMIZER_ADAM: Optimizer.ADAM,
        training_spec_pb2.OPTIMIZER_ADAMW: Optimizer.ADAMW,
    },
    "initialization": {
        training_spec_pb2.INITIALIZATION_DEFAULT: Initialization.DEFAULT,
        training_spec_pb2.INITIALIZATION_KAIMING: Initialization.KAIMING,
    },
    "schedule": {
        training_spec_pb2.SCHEDULE_CONSTANT: Schedule.CONSTANT,
        training_spec_pb2.SCHEDULE_COSINE: Schedule.COSINE,
        training_spec_pb2.SCHEDULE_ONE_CYCLE: Schedule.ONE_CYCLE,
    },
    "augmentation": {
        training_spec_pb2.AUGMENTATION_NONE: Augmentation.NONE,
        training_spec_pb2.AUGMENTATION_FLIP: Augmentation.FLIP,
        training_spec_pb2.AUGMENTATION_FLIP_CROP: Augmentation.FLIP_CROP,
    },
    "precision": {
        training_spec_pb2.PRECISION_FLOAT32: Precision.FLOAT32,
        training_spec_pb2.PRECISION_BFLOAT16: Precision.BFLOAT16,
    },
}

STATES: dict[JobState, job_pb2.JobState.ValueType] = {
    JobState.QUEUED: job_pb2.JOB_STATE_QUEUED,
    JobState.RUNNING: job_pb2.JOB_STATE_RUNNING,
    JobState.SUCCEEDED: job_pb2.JOB_STATE_SUCCEEDED,
    JobState.FAILED: job_pb2.JOB_STATE_FAILED,
    JobState.CANCELLED: job_pb2.JOB_STATE_CANCELLED,
    JobState.PAUSED: job_pb2.JOB_STATE_PAUSED,
}
STATE_OF = {number: state for state, number in STATES.items()}

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

# The fields of a spec that have presence, so that zero is not "unset".
_OptionalField = Literal[
    "blocks",
    "block_convolutions",
    "batch_norm",
    "epochs",
    "batch_size",
    "learning_rate",
    "momentum",
    "weight_decay",
    "seed",
    "residual",
    "nesterov",
    "patience",
    "diagnostics",
]
_OPTIONAL_FIELDS: tuple[_OptionalField, ...] = get_args(_OptionalField)


def to_spec(message: training_spec_pb2.TrainingSpec) -> TrainingSpec:
    """The spec, its unset fields filled with the defaults.

    Raises:
        InvalidArgumentError: the value of an enum is not known.
    """
    values: dict[str, Any] = {
        name: getattr(message, name) for name in _OPTIONAL_FIELDS if message.HasField(name)
    }
    if message.dataset:
        values["dataset"] = message.dataset
    for name, known in _SPEC_ENUMS.items():
        number = getattr(message, name)
        if number == 0:  # unspecified
            continue
        if number not in known:
            raise InvalidArgumentError.of(
                f"spec.{name}", f"is {number}, which this server does not know"
            )
        values[name] = known[number]
    return TrainingSpec(**values)


def from_spec(spec: TrainingSpec) -> training_spec_pb2.TrainingSpec:
    """The spec with every field set."""
    message = training_spec_pb2.TrainingSpec(
        dataset=spec.dataset, **{name: getattr(spec, name) for name in _OPTIONAL_FIELDS}
    )
    for name, known in _SPEC_ENUMS.items():
        value = getattr(spec, name)
        setattr(message, name, next(number for number in known if known[number] is value))
    return message


def to_options(message: job_pb2.JobOptions, default: Retention) -> JobOptions:
    """The options, their unset fields filled with the defaults.

    Raises:
        InvalidArgumentError: the retention policy is not known.
    """
    return JobOptions(
        priority=message.priority,
        time_limit=to_seconds(message.time_limit) if message.HasField("time_limit") else None,
        retention=_to_retention(message.retention, default),
    )


def to_seconds(duration: Duration) -> float:
    """The duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def _to_retention(message: job_pb2.Retention, default: Retention) -> Retention:
    if message.policy == job_pb2.RETENTION_POLICY_UNSPECIFIED and not message.every_nth:
        return default
    if message.policy == job_pb2.RETENTION_POLICY_UNSPECIFIED:
        raise InvalidArgumentError.of(
            "options.retention.policy",
            "is unset beside every_nth: set it to RETENTION_POLICY_EVERY_NTH",
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
        time_limit=_duration(options.time_limit),
        retention=job_pb2.Retention(
            policy=_POLICIES[options.retention.policy], every_nth=options.retention.every_nth
        ),
    )


def from_job(view: JobView) -> job_pb2.Job:
    """The job as it stands."""
    job = view.job
    return job_pb2.Job(
        name=f"jobs/{job.job_id}",
        spec=from_spec(job.spec),
        state=STATES[job.state],
        create_time=timestamp(job.create_time),
        start_time=timestamp(job.start_time),
        end_time=timestamp(job.end_time),
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
        deadline=timestamp(job.deadline),
        pause=_paused(job.pause) if job.pause else None,
        environment=_environment(job.environment) if job.environment else None,
        sweep=f"sweeps/{job.sweep_id}" if job.sweep_id else "",
        cancellation=_cancellation(job.cancellation),
    )


@functools.lru_cache(maxsize=256)
def from_event(event: Event) -> job_pb2.JobEvent:
    """A durable event. Not to be changed: all watchers of the job get the same."""
    message = job_pb2.JobEvent(
        sequence=event.sequence,
        job=f"jobs/{event.job_id}",
        create_time=timestamp(event.create_time),
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
            seconds_left=view.seconds_left,
        ),
    )
    message.create_time.GetCurrentTime()
    return message


def job_progress(
    job: Job, progress: Progress, *, queue_position: int = 0, seconds_left: float | None
) -> job_pb2.JobProgress:
    """How far a job is."""
    return job_pb2.JobProgress(
        phase=_PHASES.get(progress.phase, job_pb2.JOB_PHASE_UNSPECIFIED),
        epoch=progress.epoch,
        completed_images=progress.completed_images,
        total_images=progress.total_images,
        queue_position=queue_position,
        attempts=job.attempts,
        time_left=_duration(seconds_left),
    )


def from_epoch(job_id: str, epoch: EpochCompleted) -> job_pb2.EpochResult:
    """What an epoch came to."""
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


def from_model(model: Model) -> model_pb2.Model:
    """What a job has trained."""
    job = model.job
    return model_pb2.Model(
        name=f"models/{job.job_id}",
        job=f"jobs/{job.job_id}",
        variant=model_pb2.Variant(
            dataset=job.spec.dataset,
            blocks=job.spec.blocks,
            block_convolutions=job.spec.block_convolutions,
            batch_norm=job.spec.batch_norm,
            residual=job.spec.residual,
        ),
        spec=from_spec(job.spec),
        class_names=model.started.class_names,
        epochs=[
            model_pb2.ModelEpoch(
                name=f"models/{job.job_id}/epochs/{epoch.result.epoch}",
                epoch=epoch.result.epoch,
                train_accuracy=epoch.result.train_accuracy,
                test_accuracy=epoch.result.test_accuracy,
                weights_sha256=epoch.result.weights_sha256,
                kept=epoch.is_kept,
            )
            for epoch in model.epochs
        ],
        best_epoch=job.best_epoch,
        best_test_accuracy=job.best_test_accuracy,
        parameters=model.started.parameters,
        create_time=timestamp(model.create_time),
        dataset_fingerprint=model.started.dataset_fingerprint,
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
            block=one.block, activation_std=one.activation_std, gradient_norm=one.gradient_norm
        )
        for one in diagnosis
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


def _cancellation(cancellation: Cancellation | None) -> job_pb2.JobCancellation | None:
    if cancellation is None:
        return None
    return job_pb2.JobCancellation(reason=cancellation.reason, message=cancellation.message)


def _model_name(job_id: str, completed_epochs: int) -> str:
    return f"models/{job_id}" if completed_epochs else ""


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration


def timestamp(moment: datetime | None) -> Timestamp | None:
    """The moment; None where it is unset."""
    if moment is None:
        return None
    result = Timestamp()
    result.FromDatetime(moment)
    return result
