"""The pool of workers: no process and no pipe outlives it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from leadline.server.workers.child_process import ChildProcess
from leadline.server.workers.local import LocalWorker, WorkerPool
from leadline.server.workers.messages import Ready, encode

_READY = encode(Ready())


@pytest.fixture
async def pool(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WorkerPool]:
    """A pool whose workers load nothing, so that they are ready at once."""

    async def spawn(*, niceness: int) -> LocalWorker:
        del niceness
        program = f"import sys; print({_READY.decode()!r}, end='', flush=True); sys.stdin.read()"
        command = [sys.executable, "-S", "-c", program]
        return LocalWorker(
            await ChildProcess.spawn(command, environment=dict(os.environ), line_limit=1_000)
        )

    monkeypatch.setattr(LocalWorker, "spawn", spawn)
    pool = WorkerPool(spares=1, niceness=0)
    yield pool
    await pool.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_worker_ends_if_it_gets_ready_while_its_taker_is_cancelled(
    pool: WorkerPool,
) -> None:
    before = open_files()
    pool.fill()
    (spare,) = pool._spares  # the moment is in no interface
    spare.add_done_callback(lambda _: taking.cancel())
    taking = asyncio.create_task(pool.take())
    with pytest.raises(asyncio.CancelledError):
        await taking

    await pool.close()

    assert not (await spare).is_alive
    await asyncio.sleep(0)  # the pipes close in the loop's next round
    assert open_files() == before


async def test_a_worker_ends_whoever_stops_waiting_for_it(pool: WorkerPool) -> None:
    before = open_files()
    worker = await pool.take()
    impatient, patient = (asyncio.create_task(worker.kill()) for _ in range(2))
    await asyncio.sleep(0)

    impatient.cancel()
    with suppress(asyncio.CancelledError):
        await impatient
    await patient

    assert worker.is_closed
    await asyncio.sleep(0)
    assert open_files() == before


async def test_nothing_stays_of_an_abandoned_start(pool: WorkerPool) -> None:
    before = open_files()
    taking = asyncio.create_task(pool.take())
    await asyncio.sleep(0)
    taking.cancel()

    await pool.close()

    with pytest.raises(asyncio.CancelledError):
        await taking
    await asyncio.sleep(0)
    assert open_files() == before
