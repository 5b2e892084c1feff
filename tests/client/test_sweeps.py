"""Sweeps with both clients: submitting, watching, controlling, errors."""

import uuid

import pytest

from leadline.client import (
    Client,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    MedianStoppingRule,
    NotFoundError,
    SweepCancelledError,
    SweepFailedError,
    SweepState,
    TrainingSpec,
)
from support.datasets import dataset_of

DATASET = dataset_of(__file__)

SPEC = TrainingSpec(dataset=DATASET, blocks=0, epochs=1, batch_size=200)


@pytest.fixture(scope="module")
def request_id() -> str:
    """The request id of both clients, so that the sweep is trained once."""
    return str(uuid.uuid4())


def test_a_sweep_is_followed_to_its_table(client: Client, request_id: str) -> None:
    sweep = client.train_sweep({"seed": range(2)}, SPEC, request_id=request_id)
    events = list(sweep.events())
    found = sweep.result(timeout=30)

    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].finished.table == found.table == sweep.table()
    assert found.table.variants[0].best_test_accuracy.count == 2
    assert [job.id for job in sweep.jobs()] == [one.job.removeprefix("jobs/") for one in found.jobs]
    assert {job.name for job in client.jobs(sweep=sweep.id)} == {one.job for one in found.jobs}
    assert list(sweep.events(after_sequence=len(events) - 1)) == events[-1:]
    assert next(iter(client.sweeps())).name == sweep.name


def test_a_sweep_of_which_a_job_failed_is_an_error(client: Client) -> None:
    sweep = client.train_sweep({"learning_rate": [1e3]}, SPEC, priority=1)
    with pytest.raises(SweepFailedError, match="failed: 1 of 1 job failed") as caught:
        sweep.result()
    assert caught.value.sweep.counts.failed == 1


def test_a_sweep_is_paused_resumed_cancelled_and_deleted(busy_client: Client) -> None:
    sweep = busy_client.train_sweep({"batch_norm": [False, True], "blocks": [0, 1]}, SPEC)
    assert sweep.pause().state == SweepState.SWEEP_STATE_PAUSED
    assert busy_client.pause_sweep(sweep.id).state == SweepState.SWEEP_STATE_PAUSED
    assert sweep.resume().state == SweepState.SWEEP_STATE_QUEUED
    assert busy_client.resume_sweep(sweep.name).counts.queued == 4
    with pytest.raises(FailedPreconditionError):
        sweep.delete()
    with pytest.raises(DeadlineExceededError, match=f"{sweep.name} has not ended"):
        sweep.result(timeout=0.2)
    assert busy_client.cancel_sweep(sweep.name).state == SweepState.SWEEP_STATE_CANCELLED
    with pytest.raises(SweepCancelledError, match="4 of 4 jobs cancelled"):
        sweep.result()
    busy_client.delete_sweep(sweep.id)
    sweep.detach()
    for ask in (sweep.refresh, sweep.delete, sweep.result, lambda: list(sweep.events())):
        with pytest.raises(NotFoundError):
            ask()


def test_the_same_request_id_is_the_same_sweep(busy_client: Client) -> None:
    request_id = "9f9f7c1e-5a39-4a0b-8f0a-6c1f6d3c1a77"
    rule = MedianStoppingRule(grace_epochs=2)
    first, second = (
        busy_client.train_sweep({"seed": [0, 1]}, SPEC, median_stopping=rule, request_id=request_id)
        for _ in range(2)
    )
    stopping = first.refresh().median_stopping
    assert second.name == first.name
    assert (stopping.grace_epochs, stopping.min_completed_jobs) == (2, 3)
    first.detach()
    if first.refresh().state != SweepState.SWEEP_STATE_CANCELLED:
        first.cancel()


def test_what_is_wrong_is_named(busy_client: Client) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        busy_client.train_sweep({"depth": [1], "seed": [0, 0]}, SPEC)
    assert {one.field for one in caught.value.violations} == {
        *("axes[0].field", "axes[1].values[1]")
    }
    for axes in ({"dataset": "tiny"}, {"seed": [object()]}):
        with pytest.raises(InvalidArgumentError, match=r"axes\[0\].values"):
            busy_client.train_sweep(axes, SPEC)  # type: ignore[arg-type]
