"""Messages as plain values, for tables and data frames."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from leadline.client import (
    EpochResult,
    Example,
    Job,
    JobEvent,
    JobOptions,
    JobState,
    Sweep,
    TrainingSpec,
    UsageError,
    state_name,
    to_dict,
)
from leadline.v1.job_pb2 import JobFinished


def test_epochs_are_rows_of_a_data_frame() -> None:
    rows = [to_dict(EpochResult(epoch=number, test_accuracy=0.5)) for number in (1, 2)]
    assert [(row["epoch"], row["test_accuracy"], row["train_loss"]) for row in rows] == [
        (1, 0.5, 0.0),
        (2, 0.5, 0.0),
    ]
    assert list(rows[0]) == [field.name for field in EpochResult.DESCRIPTOR.fields]


def test_a_job_is_a_dict_of_names_times_and_numbers() -> None:
    job = Job(name="jobs/a", state=JobState.JOB_STATE_RUNNING, options=JobOptions(priority=2))
    job.create_time.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    job.options.time_limit.FromTimedelta(timedelta(minutes=5))
    job.latest_epoch.diagnosis.add(gradient_norm=0.5)
    values = to_dict(job)
    assert values["state"] == state_name(job) == "running"
    assert values["create_time"] == datetime(2026, 1, 2, tzinfo=UTC)
    assert (values["start_time"], values["failure"]) == (None, None)
    assert values["options"]["time_limit"] == timedelta(minutes=5)
    assert values["latest_epoch"]["diagnosis"][0]["gradient_norm"] == 0.5


def test_what_is_not_set_is_none_and_other_events_are_not_there() -> None:
    spec = to_dict(TrainingSpec(blocks=0))
    assert (spec["blocks"], spec["seed"], spec["optimizer"]) == (0, None, "unspecified")
    event = JobEvent(sequence=5, finished=JobFinished(state=JobState.JOB_STATE_FAILED))
    values = to_dict(event)
    assert values["finished"]["state"] == "failed"
    assert not {"queued", "epoch", "progress"} & set(values)


def test_bytes_stay_bytes_and_free_values_become_plain_ones() -> None:
    assert to_dict(Example(png=b"png"))["png"] == b"png"
    sweep = Sweep()
    sweep.axes.add(field="blocks").values.add(number_value=2)
    sweep.jobs.add(job="jobs/a").values.update({"blocks": 2, "batch_norm": True})
    values = to_dict(sweep)
    assert values["jobs"][0]["values"] == {"blocks": 2, "batch_norm": True}
    assert values["axes"][0]["values"] == [2]
    assert json.dumps(values["jobs"][0]["values"])


@pytest.mark.parametrize("convert", [state_name, to_dict])
def test_what_is_no_message_is_refused_with_what_to_do(convert: Callable[[Any], object]) -> None:
    with pytest.raises(UsageError, match=r"str is not a message: .* refresh\(\)"):
        convert("jobs/9mx8qxq6d1")


def test_a_message_without_a_state_has_no_state_name() -> None:
    with pytest.raises(UsageError, match="a TrainingSpec has no state"):
        state_name(TrainingSpec())
