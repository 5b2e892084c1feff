"""Checks of the events that a watcher of a job has received."""

from collections.abc import Sequence

from leadline.v1.job_pb2 import JOB_STATE_SUCCEEDED, JobEvent


def faults_of(job: str, epochs: int, events: Sequence[JobEvent]) -> list[str]:
    """Returns each epoch that was missed, repeated or out of order, and a missing end."""
    seen = [event.epoch.epoch for event in events if event.HasField("epoch")]
    sequences = [event.sequence for event in events if event.sequence]
    faults = []
    if seen != list(range(1, epochs + 1)):
        faults.append(f"{job}: epochs {seen}")
    if sequences != list(range(1, len(sequences) + 1)):
        faults.append(f"{job}: sequences {sequences}")
    if not events or events[-1].finished.state != JOB_STATE_SUCCEEDED:
        faults.append(f"{job}: never seen to succeed")
    return faults
