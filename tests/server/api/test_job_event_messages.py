"""Events are converted once for all watchers of their jobs and sweeps."""

from datetime import UTC, datetime

from leadline.server.api.jobs import job_event_messages
from leadline.server.api.sweeps import from_sweep_event
from leadline.server.jobs.job import Event, Paused
from leadline.server.sweeps.sweep import SweepEvent

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def event(sequence: int, job_id: str = "a") -> Event:
    body = Paused(reason="REQUESTED", message=f"pause {sequence} of {job_id}")
    return Event(job_id=job_id, sequence=sequence, create_time=NOW, body=body)


def test_watchers_of_a_job_share_a_message() -> None:
    messages = job_event_messages()

    first = messages.get(event(1))

    assert messages.get(event(1)) is first
    assert first.paused.message == "pause 1 of a"


def test_events_of_other_jobs_and_sequences_have_their_own_messages() -> None:
    messages = job_event_messages()

    texts = [messages.get(event(*key)).paused.message for key in ((1, "a"), (1, "b"), (2, "a"))]

    assert texts == ["pause 1 of a", "pause 1 of b", "pause 2 of a"]


def test_the_oldest_message_is_evicted() -> None:
    messages = job_event_messages(size=2)
    first = messages.get(event(1))
    messages.get(event(2))
    messages.get(event(3))

    assert messages.get(event(1)) is not first
    assert messages.get(event(1)) == first


def test_watchers_of_a_sweep_share_the_messages_of_its_jobs() -> None:
    messages = job_event_messages()
    of_job = messages.get(event(1))
    of_job.paused.message = "the cached message"
    swept = SweepEvent(sweep_id="s", sequence=7, create_time=NOW, body=event(1))

    message = from_sweep_event(swept, messages.get)

    assert (message.sequence, message.job.paused.message) == (7, "the cached message")
