"""A few tasks continue in each pass of the event loop, and a stuck one delays no others."""

import asyncio
import contextlib

from leadline.server.transport.pass_limiter import PassLimiter


async def test_a_task_goes_on_at_once_if_no_other_does() -> None:
    limiter = PassLimiter(1)
    for _ in range(3):
        turn = asyncio.ensure_future(limiter.turn())
        await asyncio.sleep(0)
        assert turn.done()
        await asyncio.sleep(0)


async def test_few_go_on_in_a_pass_and_each_in_its_turn() -> None:
    limiter = PassLimiter(3)
    sent: list[int] = []

    async def send(number: int) -> None:
        await limiter.turn()
        sent.append(number)

    tasks = [asyncio.create_task(send(number)) for number in range(50)]
    most = before = 0
    while len(sent) < len(tasks):
        await asyncio.sleep(0)
        most, before = max(most, len(sent) - before), len(sent)

    assert sent == list(range(50))
    assert most == 3


async def test_a_task_that_leaves_takes_no_turn() -> None:
    limiter = PassLimiter(1)
    tasks = [asyncio.create_task(limiter.turn()) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[1:-1]:
        task.cancel()
    for task in tasks[1:-1]:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert tasks[-1].done()
