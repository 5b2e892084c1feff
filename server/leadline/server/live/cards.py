"""Jobs, sweeps and models as the page shows them: JSON values.

Accuracies are fractions in [0, 1], times ISO 8601 in UTC, losses in nats.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from leadline.server.jobs.job import EpochCompleted, Job, Model, Progress
from leadline.server.services.jobs import seconds_left
from leadline.server.sweeps.sweep import Sweep

Card = dict[str, Any]


def job_card(job: Job) -> Card:
    """A job in a line."""
    latest = job.latest_epoch
    return {
        "id": job.job_id,
        "sweep": job.sweep_id,
        "state": job.state.value,
        **_network(job),
        "epochs": job.spec.epochs,
        "completed": job.completed_epochs,
        "best_epoch": job.best_epoch,
        "best_test": job.best_test_accuracy,
        "train": latest.train_accuracy if latest else None,
        "test": latest.test_accuracy if latest else None,
        "device": job.device,
        "note": _note(job),
        "sequence": job.latest_sequence,
        "created": _moment(job.create_time),
    }


def model_card(job: Job) -> Card:
    """The model of a job that has completed an epoch, in a line."""
    return {
        "id": job.job_id,
        **_network(job),
        "completed": job.completed_epochs,
        "best_epoch": job.best_epoch,
        "best_test": job.best_test_accuracy,
    }


def sweep_card(sweep: Sweep) -> Card:
    """A sweep in a line."""
    return {
        "id": sweep.sweep_id,
        "state": sweep.state.value,
        "axes": [
            {"field": axis.field, "values": list(axis.values)} for axis in sweep.request.grid.axes
        ],
        "jobs": {state.value: count for state, count in sweep.counts.by_state.items()},
        "median_stopped": sweep.counts.median_stopped,
        "created": _moment(sweep.create_time),
    }


def job_details(job: Job, model: Model | None) -> Card:
    """A job with every epoch; `model` is None before the first epoch."""
    environment = job.environment
    return {
        "job": job_card(job),
        "spec": job.spec.to_dict(),
        "started": _moment(job.start_time),
        "ended": _moment(job.end_time),
        "environment": None if environment is None else dict(vars(environment)),
        "device_name": model.started.device_name if model else "",
        "parameters": model.started.parameters if model else None,
        "fingerprint": model.started.dataset_fingerprint if model else "",
        "classes": list(model.started.class_names) if model else [],
        "curve": [point(epoch.result) for epoch in model.epochs] if model else [],
        "kept": [epoch.result.epoch for epoch in model.epochs if epoch.is_kept] if model else [],
    }


def point(epoch: EpochCompleted) -> list[float]:
    """An epoch of a curve: its number, train and test accuracy, train and test loss."""
    accuracies = [epoch.train_accuracy, epoch.test_accuracy]
    return [epoch.epoch, *accuracies, epoch.train_loss, epoch.test_loss]


def progress_card(job: Job, progress: Progress) -> Card:
    """The progress of a running job within its current epoch."""
    return {
        "phase": progress.phase,
        "epoch": progress.epoch,
        "images": progress.completed_images,
        "of": progress.total_images,
        "seconds_left": seconds_left(job, progress),
    }


def by_id(cards: Iterable[Card]) -> dict[str, Card]:
    """Cards by their ids, in their order."""
    return {card["id"]: card for card in cards}


def _network(job: Job) -> Card:
    spec = job.spec
    return {
        "dataset": spec.dataset,
        "blocks": spec.blocks,
        "block_convolutions": spec.block_convolutions,
        "batch_norm": spec.batch_norm,
        "residual": spec.residual,
        "seed": spec.seed,
    }


def _note(job: Job) -> str:
    """Why a job failed, was cancelled or is paused; empty otherwise."""
    reasons = (job.failure, job.cancellation, job.pause)
    return next((reason.message for reason in reasons if reason is not None), "")


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
