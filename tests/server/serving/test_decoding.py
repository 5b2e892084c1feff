"""Callers share the decoding threads fairly, and abandoned images are not decoded."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from leadline.models.images import DecodingStoppedError
from leadline.server.errors import DeadlineExceededError, ResourceExhaustedError
from leadline.server.serving.decoding import DecoderPool
from leadline.server.serving.inputs import Pixels, Steps

_CAPACITY = 100
_PIXELS = np.zeros((1, 32, 32, 3), np.uint8)


class Abandoned:
    """Counts abandoned requests."""

    count = 0

    def on_abandoned_decoding(self) -> None:
        """Counts."""
        self.count += 1


@pytest.fixture
def abandoned() -> Abandoned:
    return Abandoned()


@pytest.fixture
async def pool(abandoned: Abandoned) -> AsyncIterator[DecoderPool]:
    pool = DecoderPool(max_large_work=_CAPACITY, observer=abandoned)
    yield pool
    await asyncio.to_thread(pool.close)


class Endless:
    """An endless large request whose steps each need some CPU time.

    With a `pace`, the threads wait for each other after each step. So both take the same number of
    steps, however the system schedules them.
    """

    def __init__(self, size: int = 1, *, pace: threading.Barrier | None = None) -> None:
        self.steps = 0
        self.has_begun = threading.Event()
        self.has_stopped = threading.Event()
        self._size = size
        self._pace = pace

    def read(self) -> Steps:
        """Yields without end."""
        try:
            while True:
                yield self._size
                self.has_begun.set()
                self.steps += 1
                _burn(0.005)
                if self._pace is not None:
                    self._pace.wait(60)
        finally:
            self.has_stopped.set()


def _burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - it changes in other threads
            await asyncio.sleep(0.01)


def _in_steps(count: int, size: int = 1) -> Callable[[], Steps]:
    def read() -> Steps:
        for left in range(count, 0, -1):
            yield left * size
        return _PIXELS

    return read


def _run(
    pool: DecoderPool,
    read: Callable[[], Pixels | Steps],
    *,
    caller: str = "caller",
    seconds: float | None = None,
    wait_if_full: bool = False,
) -> "asyncio.Task[Pixels]":
    deadline = None if seconds is None else time.monotonic() + seconds
    run = pool.run(read, caller=caller, deadline=deadline, wait_if_full=wait_if_full)
    return asyncio.create_task(run)


async def _cancel(*tasks: "asyncio.Task[Pixels]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_pixels_come_from_a_call_or_from_steps(pool: DecoderPool) -> None:
    assert await _run(pool, lambda: _PIXELS) is _PIXELS
    assert await _run(pool, _in_steps(5)) is _PIXELS


@pytest.mark.parametrize("steps", [0, 1])
async def test_errors_are_the_callers(pool: DecoderPool, steps: int) -> None:
    def read() -> Steps:
        if steps:
            yield steps
        raise LookupError("no such image")

    with pytest.raises(LookupError, match="no such image"):
        await _run(pool, read)
    assert pool.large_work == 0


async def test_small_requests_do_not_wait_for_large_ones(pool: DecoderPool) -> None:
    may_go_on = threading.Event()

    def blocked() -> Steps:
        yield 1
        assert may_go_on.wait(60)
        return _PIXELS

    large = [_run(pool, blocked, caller=f"large-{number}") for number in range(8)]
    for _ in range(100):
        await _run(pool, lambda: _PIXELS)
    assert not any(task.done() for task in large)
    may_go_on.set()
    assert len(await asyncio.gather(*large)) == 8


async def test_callers_share_the_threads_however_many_requests_they_have(pool: DecoderPool) -> None:
    pace = threading.Barrier(2)
    busy, lone = [Endless(pace=pace) for _ in range(10)], Endless(pace=pace)
    tasks = [_run(pool, endless.read, caller="busy") for endless in busy]
    await asyncio.to_thread(busy[0].has_begun.wait, 30)
    tasks.append(_run(pool, lone.read, caller="lone"))
    await asyncio.to_thread(lone.has_begun.wait, 30)
    before = sum(endless.steps for endless in busy), lone.steps
    await _until(lambda: lone.steps >= before[1] + 20)
    steps = sum(endless.steps for endless in busy) - before[0]
    share = steps / (lone.steps - before[1])
    pace.abort()
    await _cancel(*tasks)
    assert 0.5 < share < 2


async def test_who_has_used_the_threads_waits_for_who_has_not(pool: DecoderPool) -> None:
    busy = [Endless() for _ in range(10)]
    tasks = [
        _run(pool, endless.read, caller=f"busy-{number}") for number, endless in enumerate(busy)
    ]
    await _until(lambda: min(endless.steps for endless in busy) >= 10)
    before = sum(endless.steps for endless in busy)
    await _run(pool, _in_steps(10), caller="new")
    steps = sum(endless.steps for endless in busy) - before
    await _cancel(*tasks)
    # Each thread takes a step of the busy caller between two steps of the new caller.
    assert steps < 60


async def test_a_request_stops_when_its_caller_leaves(
    pool: DecoderPool, abandoned: Abandoned
) -> None:
    endless, waiting = Endless(), [Endless() for _ in range(5)]
    tasks = [_run(pool, each.read) for each in (endless, *waiting)]
    await asyncio.to_thread(endless.has_begun.wait, 30)
    await _cancel(*tasks)
    for each in (endless, *waiting):
        assert not each.steps or await asyncio.to_thread(each.has_stopped.wait, 30)
    steps = endless.steps
    await _run(pool, _in_steps(3))
    assert endless.steps == steps
    assert pool.large_work == 0
    assert abandoned.count == 6


async def test_a_step_hears_that_its_caller_has_left(pool: DecoderPool) -> None:
    has_begun, has_stopped = threading.Event(), threading.Event()

    def read() -> Steps:
        is_wanted = yield 1
        assert is_wanted is not None
        has_begun.set()
        while is_wanted():
            time.sleep(0.001)
        has_stopped.set()
        raise DecodingStoppedError

    task = _run(pool, read)
    await asyncio.to_thread(has_begun.wait, 30)
    await _cancel(task)
    assert await asyncio.to_thread(has_stopped.wait, 30)


@pytest.mark.parametrize("seconds", [-1.0, 0.05])
async def test_a_request_stops_at_its_deadline(
    pool: DecoderPool, abandoned: Abandoned, seconds: float
) -> None:
    endless = Endless()
    with pytest.raises(DeadlineExceededError):
        await asyncio.wait_for(_run(pool, endless.read, seconds=seconds), 30)
    assert abandoned.count == 1
    assert pool.large_work == 0
    assert not endless.steps or await asyncio.to_thread(endless.has_stopped.wait, 30)


async def test_a_closed_pool_stops_what_runs_and_what_waits(abandoned: Abandoned) -> None:
    pool = DecoderPool(max_large_work=_CAPACITY, observer=abandoned)
    endless = [Endless() for _ in range(10)]
    tasks = [_run(pool, each.read) for each in endless]
    await asyncio.to_thread(endless[0].has_begun.wait, 30)
    await asyncio.wait_for(asyncio.to_thread(pool.close), 30)
    steps = [each.steps for each in endless]
    await asyncio.sleep(0.05)
    assert [each.steps for each in endless] == steps
    await _cancel(*tasks)


async def test_what_is_too_much_is_refused_with_when_to_come_again(pool: DecoderPool) -> None:
    first = Endless(60)
    task = _run(pool, first.read, caller="first")
    await asyncio.to_thread(first.has_begun.wait, 30)
    assert pool.large_work == 60
    with pytest.raises(ResourceExhaustedError) as error:
        await _run(pool, _in_steps(1, 50), caller="second")
    assert error.value.reason == "DECODING_QUEUE_FULL"
    assert error.value.retry_after >= 1
    assert await _run(pool, _in_steps(1, 40), caller="second") is _PIXELS
    await _cancel(task)
    assert await _run(pool, _in_steps(1, 1_000), caller="second") is _PIXELS  # nothing waits


async def test_half_of_the_queue_is_for_callers_who_have_nothing_in_it(pool: DecoderPool) -> None:
    first = Endless(30)
    task = _run(pool, first.read, caller="first")
    await asyncio.to_thread(first.has_begun.wait, 30)
    with pytest.raises(ResourceExhaustedError):
        await _run(pool, _in_steps(1, 30), caller="first")
    assert await _run(pool, _in_steps(1, 30), caller="second") is _PIXELS
    assert await _run(pool, _in_steps(1, 20), caller="first") is _PIXELS
    await _cancel(task)


async def test_streams_wait_instead(pool: DecoderPool) -> None:
    first = Endless(_CAPACITY)
    task = _run(pool, first.read)
    await asyncio.to_thread(first.has_begun.wait, 30)
    assert await _run(pool, _in_steps(2, _CAPACITY), wait_if_full=True) is _PIXELS
    await _cancel(task)
