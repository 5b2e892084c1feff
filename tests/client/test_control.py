"""Controlling jobs with both clients: pause, resume, delete, options."""

from datetime import timedelta

import pytest

from leadline.client import (
    AlreadyExistsError,
    Client,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    JobState,
    Model,
    NotFoundError,
    RetentionPolicy,
    TrainingSpec,
)
from support.datasets import dataset_of

DATASET = dataset_of(__file__)

SPEC = TrainingSpec(dataset=DATASET, blocks=0, epochs=2, batch_size=200)


def test_a_job_is_paused_resumed_cancelled_and_deleted(busy_client: Client) -> None:
    job = busy_client.train(SPEC)
    paused = job.pause()
    assert (paused.state, paused.pause.reason) == (JobState.JOB_STATE_PAUSED, "REQUESTED")
    assert busy_client.pause_job(job.id) == paused
    assert [one.name for one in busy_client.jobs(states=["paused"])] == [job.name]
    assert job.resume().state == JobState.JOB_STATE_QUEUED
    assert busy_client.resume_job(job.id).state == JobState.JOB_STATE_QUEUED
    with pytest.raises(FailedPreconditionError):
        job.delete()
    job.cancel()
    for steer in (job.pause, job.resume):
        with pytest.raises(FailedPreconditionError):
            steer()
    assert [event.WhichOneof("event") for event in job.events()] == [
        *("queued", "paused", "resumed", "finished")
    ]
    job.delete()
    for ask in (job.refresh, job.delete, lambda: list(job.events()), job.result):
        with pytest.raises(NotFoundError):
            ask()


def test_a_job_is_deleted_by_its_name(busy_client: Client) -> None:
    job = busy_client.train(SPEC)
    job.cancel()
    busy_client.delete_job(job.id)
    with pytest.raises(NotFoundError):
        busy_client.delete_job(job.name)


def test_the_stream_of_a_paused_job_stays_open(busy_client: Client) -> None:
    job = busy_client.train(SPEC)
    events = job.events()
    assert next(events).HasField("queued")
    job.pause()
    assert next(events).paused.reason == "REQUESTED"
    job.resume()
    assert next(events).HasField("resumed")
    job.cancel()
    assert [event.WhichOneof("event") for event in events] == ["finished"]


def test_a_paused_job_is_waited_for_as_long_as_is_asked(busy_client: Client) -> None:
    job = busy_client.train(SPEC)
    job.pause()
    with pytest.raises(DeadlineExceededError, match=f"{job.name} has not ended"):
        job.result(timeout=0.2)
    assert job.cancel().state == JobState.JOB_STATE_CANCELLED


def test_a_result_that_is_there_is_returned_in_time(client: Client, model: Model) -> None:
    assert client.job(model.job).result(timeout=30).name == model.job


def test_options_reach_the_job(busy_client: Client) -> None:
    before = busy_client.train(SPEC)
    job = busy_client.train(SPEC, priority=7, time_limit=timedelta(hours=1), retention=3)
    sent = job.refresh()
    assert sent.options.priority == 7
    assert sent.options.time_limit.seconds == 3600
    assert sent.deadline.seconds == sent.create_time.seconds + 3600
    assert sent.options.retention.policy == RetentionPolicy.RETENTION_POLICY_EVERY_NTH
    assert sent.options.retention.every_nth == 3
    assert sent.queue_position < before.refresh().queue_position
    job.cancel()


def test_the_same_request_id_with_other_options_is_refused(busy_client: Client) -> None:
    request_id = "4b5a6e9e-5d3c-4c9a-9a39-0d9a8a6d7c11"
    busy_client.train(SPEC, request_id=request_id)
    with pytest.raises(AlreadyExistsError):
        busy_client.train(SPEC, priority=1, request_id=request_id)


def test_each_wrong_option_is_named(busy_client: Client) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        busy_client.train(SPEC, priority=101, time_limit=0.5, retention=0)
    assert {violation.field for violation in caught.value.violations} == {
        *("options.priority", "options.time_limit", "options.retention.every_nth")
    }
