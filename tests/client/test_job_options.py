"""Job options, from keyword arguments and flags to the request."""

from datetime import timedelta

import pytest

from leadline.client import InvalidArgumentError, JobOptions, Retention, RetentionPolicy
from leadline.client._deadline import Deadline
from leadline.client._errors import DeadlineExceededError
from leadline.client._job_options import RetentionLike, TimeLimit, job_options


def options(
    priority: int | None = None,
    time_limit: TimeLimit | None = None,
    retention: RetentionLike | None = None,
) -> JobOptions | None:
    return job_options(priority=priority, time_limit=time_limit, retention=retention)


def test_only_what_is_given_is_sent() -> None:
    assert options() is None
    sent = options(priority=0)
    assert sent is not None
    assert [field.name for field, _ in sent.ListFields()] == ["priority"]
    sent = options(time_limit=90)
    assert sent is not None
    assert [field.name for field, _ in sent.ListFields()] == ["time_limit"]


@pytest.mark.parametrize(
    ("limit", "seconds", "nanos"),
    [(90, 90, 0), (1.5, 1, 500_000_000), (timedelta(days=1), 86_400, 0)],
)
def test_a_time_limit_is_seconds_or_a_timedelta(limit: TimeLimit, seconds: int, nanos: int) -> None:
    sent = options(time_limit=limit)
    assert sent is not None
    assert (sent.time_limit.seconds, sent.time_limit.nanos) == (seconds, nanos)


@pytest.mark.parametrize(
    ("retention", "policy", "every_nth"),
    [
        ("all", RetentionPolicy.RETENTION_POLICY_ALL, 0),
        ("Best_And_Last", RetentionPolicy.RETENTION_POLICY_BEST_AND_LAST, 0),
        (5, RetentionPolicy.RETENTION_POLICY_EVERY_NTH, 5),
    ],
)
def test_a_retention_is_a_name_or_a_number(
    retention: RetentionLike, policy: RetentionPolicy.ValueType, every_nth: int
) -> None:
    message = Retention(policy=policy, every_nth=every_nth)
    for given in (retention, message):
        sent = options(retention=given)
        assert sent is not None
        assert sent.retention == message


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"priority": 2**40}, "options.priority"),
        ({"time_limit": float("nan")}, "options.time_limit"),
        ({"time_limit": float("inf")}, "options.time_limit"),
        ({"retention": "some"}, "options.retention"),
        ({"retention": 2**40}, "options.retention.every_nth"),
    ],
)
def test_what_no_server_takes_is_refused_at_once(given: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        options(**given)  # type: ignore[arg-type]
    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_deadline_counts_down_and_is_then_an_error() -> None:
    now = 100.0
    deadline = Deadline(5.0, "jobs/a has not ended", clock=lambda: now)
    now = 102.0
    deadline.check()
    assert (deadline.remaining(), deadline.at_most(1.0), deadline.at_most(60.0)) == (3.0, 1.0, 3.0)
    now = 200.0
    assert deadline.remaining() == 0.0
    with pytest.raises(DeadlineExceededError, match="jobs/a has not ended within 5 s"):
        deadline.check()


def test_without_seconds_there_is_no_deadline() -> None:
    deadline = Deadline(None, "never")
    deadline.check()
    assert (deadline.remaining(), deadline.at_most(60.0)) == (None, 60.0)
