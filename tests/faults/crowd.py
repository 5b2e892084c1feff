"""Clients that submit jobs and watch them through failures of the server."""

import random
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from leadline.client import Client, LeadlineError, TrainingJob, UnavailableError
from leadline.v1.job_pb2 import JOB_STATE_SUCCEEDED, JobEvent
from leadline.v1.training_spec_pb2 import TrainingSpec


@dataclass
class Followed:
    """A job as its watcher sees it.

    Attributes:
        kind: the index of its spec.
        job: its name, after its acknowledgement.
        events: the received events, in order of arrival.
        error: the error that ended the watching too early.
    """

    kind: int
    spec: TrainingSpec
    request_id: str
    job: str = ""
    events: list[JobEvent] = field(default_factory=list)
    error: str = ""
    is_done: bool = False

    @property
    def has_succeeded(self) -> bool:
        """Whether the watcher saw it succeed."""
        return bool(self.events) and self.events[-1].finished.state == JOB_STATE_SUCCEEDED


class Crowd:
    """Keeps some jobs on a server, each watched by a thread with the SDK."""

    def __init__(self, target: str, specs: Sequence[TrainingSpec], random: random.Random) -> None:
        self.followed: list[Followed] = []
        self._client = Client(target, reconnect_timeout=None)
        self._specs = specs
        self._random = random
        self._threads: list[threading.Thread] = []

    @property
    def unfinished(self) -> list[Followed]:
        """The jobs whose watcher has not seen the end."""
        return [follower for follower in self.followed if not follower.is_done]

    def top_up(self, count: int) -> None:
        """Submits jobs until this many are unfinished."""
        for _ in range(count - len(self.unfinished)):
            kind = len(self.followed) % len(self._specs)
            request_id = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
            follower = Followed(kind, self._specs[kind], request_id)
            self.followed.append(follower)
            thread = threading.Thread(target=self._follow, args=[follower], daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self, seconds: float) -> None:
        """Waits until all jobs have ended, up to a time limit."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Ends all watching."""
        self._client.close()
        for thread in self._threads:
            thread.join(30)

    def _follow(self, follower: Followed) -> None:
        try:
            handle = self._submit(follower)
            follower.job = handle.name
            follower.events.extend(event for event in handle.events() if event.sequence)
        except LeadlineError as error:
            follower.error = f"{type(error).__name__}: {error}"
        follower.is_done = True

    def _submit(self, follower: Followed) -> TrainingJob:
        while True:
            try:
                return self._client.train(follower.spec, request_id=follower.request_id)
            except UnavailableError:  # the restart takes longer than the SDK retries
                time.sleep(0.2)
