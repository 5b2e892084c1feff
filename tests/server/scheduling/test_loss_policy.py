"""Retries of a job after a lost worker."""

from dataclasses import replace

import pytest

from leadline.server.jobs.job import Failure, Job
from leadline.server.scheduling.loss_policy import LossPolicy
from leadline.server.workers.local import WorkerEnd

ENDED = WorkerEnd(text="ended")
KILLED = WorkerEnd(text="killed by signal 9")


@pytest.fixture
def policy() -> LossPolicy:
    return LossPolicy(max_attempts=3, silence_limit=30.0)


def test_a_job_is_tried_again_at_first_and_then_after_a_while_until_it_fails(
    policy: LossPolicy, ordinary: Job
) -> None:
    answers = [policy.record_loss(ordinary, KILLED) for _ in range(3)]

    assert answers == [
        0.0,
        1.0,
        Failure(
            reason="WORKER_LOST",
            message="3 workers in a row were lost in epoch 1; the last killed by signal 9",
        ),
    ]


def test_each_epoch_has_its_own_count(policy: LossPolicy, ordinary: Job) -> None:
    for epoch in range(4):
        job = replace(ordinary, completed_epochs=epoch)
        assert [policy.record_loss(job, ENDED) for _ in range(2)] == [0.0, 1.0]


def test_each_job_has_its_own_count_which_can_be_forgotten(
    policy: LossPolicy, ordinary: Job
) -> None:
    for job in (ordinary, replace(ordinary, job_id="b")):
        assert [policy.record_loss(job, ENDED) for _ in range(2)] == [0.0, 1.0]

    policy.forget(ordinary.job_id)

    assert policy.record_loss(ordinary, ENDED) == 0.0


def test_a_worker_that_another_would_follow_is_the_only_one(
    policy: LossPolicy, ordinary: Job
) -> None:
    end = WorkerEnd(text="needs more", reason="OUT_OF_MEMORY", is_final=True)

    assert policy.record_loss(ordinary, end) == Failure(
        reason="OUT_OF_MEMORY", message="needs more"
    )
