"""A thousand concurrent watchers of one job: other callers must not notice them."""

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import AsyncIterable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from faults.metrics import open_calls
from faults.servers import Server, wait_until
from faults.setting import Figure, Setting, all_of, percentile
from leadline.client import Client, HealthStatus, LeadlineError
from leadline.v1.job_pb2 import JobEvent
from leadline.v1.training_service_pb2 import WatchJobRequest
from leadline.v1.training_service_pb2_grpc import TrainingServiceStub
from support.wire import tiny_spec

_CHANNELS = 20
_NICENESS = 10
_HEALTH_BAR_SECONDS = 0.05
_SECONDS_BETWEEN_PROBES = 0.02

# Its epochs take one or two seconds on two cores.
_SPEC: dict[str, Any] = {"blocks": 2, "batch_size": 2, "learning_rate": 0.001}


@dataclass
class _Prober:
    """Makes health checks and predictions like other callers, over a separate connection."""

    target: str
    model: str
    image: bytes
    health_seconds: list[float] = field(default_factory=list)
    predict_seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._enough = threading.Event()
        self._threads = [
            threading.Thread(target=ask, daemon=True)
            for ask in (self._ask_for_health, self._ask_for_predictions)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stops the calls."""
        self._enough.set()
        for thread in self._threads:
            thread.join(60)

    def _ask_for_health(self) -> None:
        with Client(self.target) as client:
            while not self._enough.wait(_SECONDS_BETWEEN_PROBES):
                began = time.perf_counter()
                if client.health() is not HealthStatus.SERVING:
                    self.failures.append("health is not SERVING")
                self.health_seconds.append(time.perf_counter() - began)

    def _ask_for_predictions(self) -> None:
        with Client(self.target) as client:
            while not self._enough.wait(_SECONDS_BETWEEN_PROBES):
                began = time.perf_counter()
                try:
                    client.predict(self.image, model=self.model)
                except LeadlineError as error:
                    self.failures.append(str(error))
                self.predict_seconds.append(time.perf_counter() - began)


def watch_many(target: str, job: str, count: int) -> list[list[int]]:
    """Opens this many streams on a job, and returns the sequences that each received.

    Real watchers run on other machines, so this process has a lower priority than the server.
    """
    os.nice(_NICENESS)
    return asyncio.run(_watch_many(target, job, count))


async def _watch_many(target: str, job: str, count: int) -> list[list[int]]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(target, options) for _ in range(_CHANNELS)]
    stubs = [TrainingServiceStub(channel) for channel in channels]
    streams = (_watch(stubs[number % _CHANNELS], job) for number in range(count))
    seen = await asyncio.gather(*streams)
    for channel in channels:
        await channel.close()
    return seen


async def _watch(stub: TrainingServiceStub, job: str) -> list[int]:
    events: AsyncIterable[JobEvent]
    # The types of the stubs lack asynchronous channels.
    events = stub.WatchJob(WatchJobRequest(name=job))  # type: ignore[assignment]
    return [event.sequence async for event in events if event.sequence]


def watch_together(setting: Setting) -> list[Figure]:
    """Opens all streams on a job in training, while another client makes other calls."""
    count, spawn = setting.scale.watchers, multiprocessing.get_context("spawn")
    image = next(setting.dataset.glob("test/*/*.png")).read_bytes()
    # The pool exits last, because its process ends only after its server.
    pool = ProcessPoolExecutor(1, mp_context=spawn)
    with pool, setting.serving() as server, Client(server.target) as client:
        job = client.train(tiny_spec(epochs=setting.scale.watched_epochs, **_SPEC))
        next(iter(job.epochs()))  # from which the model can predict
        watching = pool.submit(watch_many, server.target, job.name, count)
        _wait_until_all_watch(server, watching, count)
        setting.say(f"{count} watchers are there")
        prober = _Prober(server.target, job.model, image)
        try:
            seen = watching.result(600)
        finally:
            prober.close()
        last = client.get_job(job.name).latest_sequence
    return _figures(seen, last, prober)


def _wait_until_all_watch(server: Server, watching: Future[Any], count: int) -> None:
    wait_until(
        lambda: watching.done() or open_calls(server.metrics_url, "WatchJob") >= count,
        f"{count} streams were open",
        seconds=120,
    )
    if watching.done():
        raise TimeoutError(f"the job was over before {count} streams were open: more epochs")


def _figures(seen: list[list[int]], last: int, prober: _Prober) -> list[Figure]:
    late = percentile(prober.health_seconds, 0.99)
    wrong = [sequences for sequences in seen if sequences != list(range(1, last + 1))]
    asked = len(prober.predict_seconds)
    return [
        Figure(
            bar=f"{len(seen):,} watchers open at once: health check "
            f"({len(prober.health_seconds):,} asked)",
            required=f"p99 under {_HEALTH_BAR_SECONDS * 1000:.0f} ms",
            measured=f"p99 {late * 1000:.1f} ms, "
            f"median {percentile(prober.health_seconds, 0.5) * 1000:.1f} ms",
            ok=late < _HEALTH_BAR_SECONDS,
            is_timing=True,
        ),
        Figure(
            bar=f"the same: Predict success ({asked:,} asked)",
            required="100 %",
            measured=f"{1 - len(prober.failures) / asked:.0%}, "
            f"p99 {percentile(prober.predict_seconds, 0.99) * 1000:.0f} ms",
            ok=not prober.failures,
        ),
        all_of("the same: watchers who got each event once, in order", wrong, len(seen)),
    ]
