"""SIGKILL of a job's worker: the time until another worker continues the training."""

import random
import threading
import time
from dataclasses import dataclass, field

import grpc
from google.protobuf.duration_pb2 import Duration

from faults.servers import Server, wait_until
from faults.setting import PATIENT, Figure, Setting, percentile
from leadline.v1.job_pb2 import JOB_PHASE_EVALUATING, JOB_PHASE_TRAINING, JobEvent
from leadline.v1.training_service_pb2 import CancelJobRequest, TrainJobRequest, WatchJobRequest
from support.wire import Stubs, connect, tiny_spec

_BAR_SECONDS = 5.0
_INTERVAL = Duration(nanos=50_000_000)
_AT_WORK = (JOB_PHASE_TRAINING, JOB_PHASE_EVALUATING)


@dataclass
class _Lookout:
    """Records in a thread when each worker of a job first trains."""

    stubs: Stubs
    job: str
    first_seen: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        request = WatchJobRequest(name=self.job, progress_interval=_INTERVAL)
        self._call = self.stubs.training.WatchJob(request)
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    @property
    def latest(self) -> int:
        """The number of the newest worker that has trained."""
        return max(self.first_seen, default=0)

    def close(self) -> None:
        """Stops the thread."""
        self._call.cancel()
        self._thread.join(30)

    def _look(self) -> None:
        try:
            for event in self._call:
                self._note(event, time.monotonic())
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.CANCELLED:
                raise

    def _note(self, event: JobEvent, now: float) -> None:
        if event.progress.phase in _AT_WORK:
            self.first_seen.setdefault(event.progress.attempts, now)


def time_recoveries(setting: Setting) -> list[Figure]:
    """Repeatedly kills the worker of a job at random moments, and times each recovery."""
    chance = setting.random()
    with setting.serving(PATIENT) as server:
        stubs = connect(server.target)
        submission = stubs.training.TrainJob(
            TrainJobRequest(spec=tiny_spec(epochs=10_000, learning_rate=0.001))
        )
        job = next(iter(submission)).job
        lookout = _Lookout(stubs, job)
        try:
            seconds: list[float] = []
            while len(seconds) < setting.scale.recoveries and setting.has_time:
                seconds.append(_time_one(server, lookout, chance, len(seconds)))
                setting.say(
                    f"{len(seconds)} of {setting.scale.recoveries} recoveries, {seconds[-1]:.2f} s"
                )
            stubs.training.CancelJob(CancelJobRequest(name=job), timeout=30)
        finally:
            lookout.close()
            stubs.channel.close()
    return [_figure(seconds)]


def _time_one(server: Server, lookout: _Lookout, chance: random.Random, number: int) -> float:
    wait_until(lambda: lookout.latest > number, "the job was in training")
    time.sleep(chance.uniform(0, 2.5))
    # Spare workers start later, so the worker that trains is the oldest.
    worker = server.workers()[0]
    killed = time.monotonic()
    worker.kill()
    wait_until(lambda: lookout.latest > number + 1, "the job was in training again")
    return lookout.first_seen[number + 2] - killed


def _figure(seconds: list[float]) -> Figure:
    late = percentile(seconds, 0.99)
    return Figure(
        bar=f"worker killed, {len(seconds)} times: until training goes on",
        required=f"p99 under {_BAR_SECONDS:.0f} s",
        measured=f"p99 {late:.2f} s, median {percentile(seconds, 0.5):.2f} s",
        ok=late < _BAR_SECONDS,
        is_timing=True,
    )
