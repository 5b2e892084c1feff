"""Health: when a part fails, and when it recovers."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import pytest

from leadline.server.serving.decoding import DecoderPool
from leadline.server.serving.predictor import Predictor
from leadline.server.storage.database import open_database
from leadline.server.storage.store import Store
from leadline.server.telemetry.health import HealthMonitor, Probe
from leadline.server.telemetry.metrics import Metrics
from leadline.server.thread_pool import ThreadPool

LOOK = 0.02


class Reports:
    """Records the reports of a monitor, and waits for them."""

    def __init__(self) -> None:
        self.all: list[set[str]] = []
        self._changed = asyncio.Event()

    async def report(self, failing: Collection[str]) -> None:
        self.all.append(set(failing))
        self._changed.set()

    async def next(self) -> set[str]:
        async with asyncio.timeout(20):
            await self._changed.wait()
        self._changed.clear()
        return self.all[-1]


def monitored(
    check: Callable[[], Awaitable[None]], *, patience: int = 3
) -> tuple[HealthMonitor, Reports]:
    reports = Reports()
    probe = Probe(part="part", check=check, patience=patience)
    monitor = HealthMonitor([probe], on_change=reports.report, look_seconds=LOOK)
    return monitor, reports


async def test_a_store_whose_threads_are_stuck_fails_until_they_are_free(tmp_path: Path) -> None:
    engine, threads = open_database(tmp_path / "jobs.db"), ThreadPool("store", 2)
    store, go_on = Store(engine), threading.Event()

    async def check() -> None:
        await threads.run(store.check_reads)

    monitor, reports = monitored(check)
    task = asyncio.create_task(monitor.run())
    await asyncio.sleep(5 * LOOK)
    assert reports.all == []

    stuck = [asyncio.create_task(threads.run(go_on.wait)) for _ in range(2)]
    assert await reports.next() == {"part"}
    assert monitor.failing() == {"part": True}
    go_on.set()
    assert await reports.next() == set()

    await asyncio.gather(*stuck)
    task.cancel()
    await asyncio.wait({task})
    threads.close()
    engine.dispose()


async def test_a_computing_thread_that_has_ended_fails() -> None:
    metrics = Metrics()
    predictor = Predictor(
        device="cpu",
        threads=1,
        max_pending=1,
        max_loaded_bytes=1,
        decoders=DecoderPool(max_large_work=1 << 20, observer=metrics),
        observer=metrics,
    )
    monitor, reports = monitored(predictor.check)
    task = asyncio.create_task(monitor.run())
    await asyncio.sleep(5 * LOOK)
    assert reports.all == []

    predictor._batcher.close()

    assert await reports.next() == {"part"}
    task.cancel()
    await asyncio.wait({task})
    predictor.close()


async def test_one_error_is_no_failure_and_two_in_a_row_are() -> None:
    answers = iter([False, True, False, False, True])
    asked: list[bool] = []

    async def check() -> None:
        asked.append(next(answers, True))
        if not asked[-1]:
            raise OSError("the disk is gone")

    monitor, reports = monitored(check)
    task = asyncio.create_task(monitor.run())

    assert await reports.next() == {"part"}
    assert asked[:4] == [False, True, False, False]
    assert await reports.next() == set()
    task.cancel()
    await asyncio.wait({task})


async def test_a_pause_of_the_whole_process_is_no_failure() -> None:
    async def check() -> None:
        await asyncio.sleep(LOOK / 2)

    monitor, reports = monitored(check, patience=2)
    task = asyncio.create_task(monitor.run())
    await asyncio.sleep(1.2 * LOOK)

    threading.Event().wait(20 * LOOK)  # blocks the event loop, like a stopped process
    await asyncio.sleep(3 * LOOK)

    assert reports.all == []
    task.cancel()
    await asyncio.wait({task})


async def test_the_metrics_name_the_failing_parts() -> None:
    async def check() -> None:
        raise OSError("the disk is gone")

    monitor, reports = monitored(check)
    metrics = Metrics()
    metrics.watch_health(monitor.failing)
    values = [metrics.registry.get_sample_value("leadline_part_healthy", {"part": "part"})]
    task = asyncio.create_task(monitor.run())
    await reports.next()
    values.append(metrics.registry.get_sample_value("leadline_part_healthy", {"part": "part"}))

    assert values == [1, 0]
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.parametrize("failed_before", [False, True])
def test_a_check_of_writes_writes_only_after_a_write_that_failed(
    tmp_path: Path, failed_before: bool
) -> None:
    path = tmp_path / "jobs.db"
    engine = open_database(path)
    store = Store(engine)
    store._database._last_write_failed = failed_before
    journal = path.with_name("jobs.db-wal")
    before = journal.stat().st_size, journal.stat().st_mtime_ns

    store.check_writes()
    revision = store.revision
    store.check_writes()

    assert ((journal.stat().st_size, journal.stat().st_mtime_ns) != before) == failed_before
    assert store.revision == revision == 0
    engine.dispose()
