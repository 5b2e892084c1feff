"""Sweeps and their events: request to value, value to message."""

from collections.abc import Callable, Mapping

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct, Value

from leadline.server.api.common_fields import from_datetime
from leadline.server.api.jobs import STATES, from_options, job_progress, to_options
from leadline.server.api.specs import from_spec, to_spec
from leadline.server.errors import InvalidArgumentError
from leadline.server.jobs.job import Event, Job
from leadline.server.jobs.options import Retention
from leadline.server.jobs.states import JobState
from leadline.server.services.jobs import seconds_left
from leadline.server.sweeps.grid import AxisValue, Grid, SweepAxis, read_axes, size_violation
from leadline.server.sweeps.median_stopping import MedianStopping
from leadline.server.sweeps.sweep import (
    MEDIAN_STOPPED,
    Sweep,
    SweepCounts,
    SweepEvent,
    SweepFinished,
    SweepProgress,
    SweepQueued,
    SweepRequest,
    SweepState,
    SweepView,
)
from leadline.server.sweeps.table import BestDepth, SeedStatistics, SweepTable, Variant
from leadline.v1 import job_pb2, sweep_pb2
from leadline.v1.training_service_pb2 import TrainSweepRequest

_STATES: dict[SweepState, sweep_pb2.SweepState.ValueType] = {
    SweepState.QUEUED: sweep_pb2.SWEEP_STATE_QUEUED,
    SweepState.RUNNING: sweep_pb2.SWEEP_STATE_RUNNING,
    SweepState.PAUSED: sweep_pb2.SWEEP_STATE_PAUSED,
    SweepState.SUCCEEDED: sweep_pb2.SWEEP_STATE_SUCCEEDED,
    SweepState.FAILED: sweep_pb2.SWEEP_STATE_FAILED,
    SweepState.CANCELLED: sweep_pb2.SWEEP_STATE_CANCELLED,
}


def to_sweep_request(message: TrainSweepRequest, default: Retention) -> SweepRequest:
    """The sweep to submit, its unset fields filled with the defaults.

    Raises:
        InvalidArgumentError: the axes are invalid, or an enum's value is unknown.
    """
    # Before values are read: this runs on the event loop, and a message may hold millions.
    oversized = size_violation([len(axis.values) for axis in message.axes])
    if oversized:
        raise InvalidArgumentError([oversized], reason="INVALID_SWEEP")
    given = [(axis.field, [_to_value(value) for value in axis.values]) for axis in message.axes]
    axes, violations = read_axes(given)
    if violations:
        raise InvalidArgumentError(violations, reason="INVALID_SWEEP")
    return SweepRequest(
        grid=Grid(spec=to_spec(message.spec), axes=axes),
        options=to_options(message.options, default),
        median_stopping=_to_rule(message.median_stopping)
        if message.HasField("median_stopping")
        else None,
    )


def from_sweep(sweep: Sweep) -> sweep_pb2.Sweep:
    """The sweep's current state, without its jobs and its table."""
    request = sweep.request
    return sweep_pb2.Sweep(
        name=f"sweeps/{sweep.sweep_id}",
        owner=sweep.owner,
        spec=from_spec(request.grid.spec),
        axes=[_from_axis(axis) for axis in request.grid.axes],
        options=from_options(request.options),
        median_stopping=_from_rule(request.median_stopping),
        state=_STATES[sweep.state],
        create_time=from_datetime(sweep.create_time),
        end_time=from_datetime(sweep.end_time),
        counts=_from_counts(sweep.counts),
        latest_sequence=sweep.latest_sequence,
    )


def from_sweep_view(view: SweepView) -> sweep_pb2.Sweep:
    """The sweep's current state, with its jobs and its table."""
    message = from_sweep(view.sweep)
    grid = view.sweep.request.grid
    message.jobs.extend(_from_job(grid, job) for job in view.jobs)
    message.table.MergeFrom(_from_table(view.table))
    message.table.SetInParent()
    return message


def from_sweep_event(
    event: SweepEvent, job_message: Callable[[Event], job_pb2.JobEvent]
) -> sweep_pb2.SweepEvent:
    """A durable event; `job_message` converts an event of one of its jobs."""
    message = sweep_pb2.SweepEvent(
        sequence=event.sequence,
        sweep=f"sweeps/{event.sweep_id}",
        create_time=from_datetime(event.create_time),
    )
    match event.body:
        case Event() as body:
            message.job.MergeFrom(job_message(body))
        case SweepQueued() as body:
            message.queued.MergeFrom(_from_queued(body))
        case SweepFinished() as body:
            message.finished.MergeFrom(
                sweep_pb2.SweepFinished(
                    state=_STATES[body.state],
                    counts=_from_counts(body.counts),
                    table=_from_table(body.table),
                )
            )
    return message


def from_sweep_progress(progress: SweepProgress) -> sweep_pb2.SweepEvent:
    """A transient event, which has no sequence."""
    message = sweep_pb2.SweepEvent(
        sweep=f"sweeps/{progress.sweep.sweep_id}",
        progress=sweep_pb2.SweepProgress(
            counts=_from_counts(progress.sweep.counts),
            running=[
                sweep_pb2.SweepJobProgress(
                    job=f"jobs/{job.job_id}",
                    progress=job_progress(
                        job, job_state, seconds_left=seconds_left(job, job_state)
                    ),
                )
                for job, job_state in progress.running
            ],
        ),
    )
    message.create_time.GetCurrentTime()
    return message


def _to_value(value: Value) -> object:
    kind = value.WhichOneof("kind")
    return None if kind in {None, "null_value"} else getattr(value, kind)


def _to_rule(message: sweep_pb2.MedianStoppingRule) -> MedianStopping:
    default = MedianStopping()
    return MedianStopping(
        grace_epochs=message.grace_epochs
        if message.HasField("grace_epochs")
        else default.grace_epochs,
        min_completed_jobs=message.min_completed_jobs
        if message.HasField("min_completed_jobs")
        else default.min_completed_jobs,
    )


def _from_rule(rule: MedianStopping | None) -> sweep_pb2.MedianStoppingRule | None:
    if rule is None:
        return None
    return sweep_pb2.MedianStoppingRule(
        grace_epochs=rule.grace_epochs, min_completed_jobs=rule.min_completed_jobs
    )


def _from_axis(axis: SweepAxis) -> sweep_pb2.SweepAxis:
    values = [ParseDict(value, Value()) for value in axis.values]
    return sweep_pb2.SweepAxis(field=axis.field, values=values)


def _from_counts(counts: SweepCounts) -> sweep_pb2.SweepCounts:
    return sweep_pb2.SweepCounts(
        queued=counts.by_state[JobState.QUEUED],
        running=counts.by_state[JobState.RUNNING],
        paused=counts.by_state[JobState.PAUSED],
        succeeded=counts.by_state[JobState.SUCCEEDED],
        failed=counts.by_state[JobState.FAILED],
        cancelled=counts.by_state[JobState.CANCELLED],
        median_stopped=counts.median_stopped,
    )


def _from_queued(queued: SweepQueued) -> sweep_pb2.SweepQueued:
    return sweep_pb2.SweepQueued(
        spec=from_spec(queued.grid.spec),
        axes=[_from_axis(axis) for axis in queued.grid.axes],
        jobs=[
            sweep_pb2.SweepJob(
                job=f"jobs/{job_id}", values=_struct(point), state=job_pb2.JOB_STATE_QUEUED
            )
            for job_id, point in queued.jobs
        ],
    )


def _from_job(grid: Grid, job: Job) -> sweep_pb2.SweepJob:
    return sweep_pb2.SweepJob(
        job=f"jobs/{job.job_id}",
        values=_struct(grid.point_of(job.spec)),
        state=STATES[job.state],
        completed_epochs=job.completed_epochs,
        best_test_accuracy=job.best_test_accuracy,
        last_test_accuracy=job.latest_epoch.test_accuracy if job.latest_epoch else 0.0,
        median_stopped=job.cancellation is not None and job.cancellation.reason == MEDIAN_STOPPED,
    )


def _from_table(table: SweepTable) -> sweep_pb2.SweepTable:
    return sweep_pb2.SweepTable(
        variants=[_from_variant(variant) for variant in table.variants],
        best_depths=[_from_best_depth(best) for best in table.best_depths],
    )


def _from_variant(variant: Variant) -> sweep_pb2.SweepVariant:
    return sweep_pb2.SweepVariant(
        values=_struct(variant.point),
        jobs=[f"jobs/{job_id}" for job_id in variant.job_ids],
        finished_jobs=variant.finished_jobs,
        best_test_accuracy=_from_statistics(variant.best),
        last_test_accuracy=_from_statistics(variant.last),
        best_job=f"jobs/{variant.best_job_id}" if variant.best_job_id else "",
    )


def _from_statistics(statistics: SeedStatistics | None) -> sweep_pb2.SeedStatistics | None:
    if statistics is None:
        return None
    return sweep_pb2.SeedStatistics(
        count=statistics.count,
        mean=statistics.mean,
        standard_deviation=statistics.deviation,
        min=statistics.least,
        max=statistics.most,
    )


def _from_best_depth(best: BestDepth) -> sweep_pb2.SweepBestDepth:
    return sweep_pb2.SweepBestDepth(
        values=_struct(best.point),
        blocks=best.blocks,
        mean_test_accuracy=best.mean,
        confidence=best.confidence,
        runner_up_blocks=best.runner_up,
        margin=best.margin,
    )


def _struct(point: Mapping[str, AxisValue]) -> Struct:
    struct = Struct()
    struct.update(dict(point))
    return struct
