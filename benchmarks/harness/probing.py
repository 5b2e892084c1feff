"""Callers in separate processes, which measure how other calls delay theirs."""

import asyncio
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any, NamedTuple

import grpc

OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
]

_SPAWN = multiprocessing.get_context("spawn")


class _Signals(NamedTuple):
    """Events between the processes: the other one has begun, and should end."""

    begun: Event
    enough: Event


class Sample(NamedTuple):
    """The start and the duration of a call, in seconds of a clock that processes share."""

    began: float
    seconds: float


class Samples(list[Sample]):
    """The calls of a prober."""

    def between(self, began: float, ended: float) -> list[float]:
        """The latencies of the calls that overlap a time span, in seconds."""
        return [
            sample.seconds
            for sample in self
            if sample.began < ended and sample.began + sample.seconds > began
        ]


@contextmanager
def probing(target: str, path: str, request: bytes, *, interval: float) -> Iterator[Samples]:
    """Calls at a steady rate during the block, in another process; then has the samples."""
    samples = Samples()
    with _SPAWN.Manager() as manager, ProcessPoolExecutor(1, mp_context=_SPAWN) as pool:
        signals = _Signals(manager.Event(), manager.Event())
        probed = pool.submit(_probe, target, path, request, interval, signals)
        signals.begun.wait(60)
        try:
            yield samples
        finally:
            signals.enough.set()
            samples += probed.result()


def _probe(
    target: str, path: str, request: bytes, interval: float, signals: _Signals
) -> list[Sample]:
    samples = []
    with grpc.insecure_channel(target, OPTIONS) as channel:
        call: Any = channel.unary_unary(path)
        call(request, timeout=60)
        signals.begun.set()
        stop = _StopLooks(signals.enough)
        while not stop.is_set():
            began = time.monotonic()
            call(request, timeout=60)
            samples.append(Sample(began, time.monotonic() - began))
            time.sleep(max(0.0, began + interval - time.monotonic()))
    return samples


class _StopLooks:
    """Polls an event of a manager ten times per second, because each check is a message."""

    def __init__(self, event: Event) -> None:
        self._event = event
        self._next = time.monotonic()
        self._is_set = False

    def is_set(self) -> bool:
        """Whether the event was set at the last check."""
        if time.monotonic() >= self._next:
            self._is_set = self._event.is_set()
            self._next = time.monotonic() + 0.1
        return self._is_set


@contextmanager
def watching(target: str, path: str, requests: Sequence[bytes]) -> Iterator[None]:
    """Reads a stream for each request during the block, in another process."""
    with _SPAWN.Manager() as manager, ProcessPoolExecutor(1, mp_context=_SPAWN) as pool:
        signals = _Signals(manager.Event(), manager.Event())
        watched = pool.submit(_run_watch, target, path, requests, signals)
        if not signals.begun.wait(120):
            raise TimeoutError("not every watcher has its first event")
        try:
            yield
        finally:
            signals.enough.set()
            watched.result()


def _run_watch(target: str, path: str, requests: Sequence[bytes], signals: _Signals) -> None:
    asyncio.run(_watch(target, path, requests, signals))


async def _watch(target: str, path: str, requests: Sequence[bytes], signals: _Signals) -> None:
    channels = [grpc.aio.insecure_channel(target, OPTIONS) for _ in range(20)]

    async def follow(number: int, request: bytes) -> None:
        call: Any = channels[number % len(channels)].unary_stream(path)
        stream = call(request)
        await stream.read()
        firsts.release()
        async for _ in stream:
            pass

    firsts = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(follow(*each)) for each in enumerate(requests)]
    for _ in tasks:
        await firsts.acquire()
    signals.begun.set()
    await asyncio.to_thread(signals.enough.wait)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for channel in channels:
        await channel.close()
