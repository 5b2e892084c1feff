"""A few streams continue in each pass of the event loop, and a stuck one delays no others."""

import asyncio
import contextlib

from leadline.server.api.send_limiter import SendLimiter


async def test_a_stream_goes_on_at_once_if_no_other_does() -> None:
    send_limiter = SendLimiter(streams_a_pass=1)
    for _ in range(3):
        turn = asyncio.ensure_future(send_limiter.turn())
        await asyncio.sleep(0)
        assert turn.done()
        await asyncio.sleep(0)


async def test_few_go_on_in_a_pass_and_each_in_its_turn() -> None:
    send_limiter = SendLimiter(streams_a_pass=3)
    sent: list[int] = []

    async def send(number: int) -> None:
        await send_limiter.turn()
        sent.append(number)

    streams = [asyncio.create_task(send(number)) for number in range(50)]
    most = before = 0
    while len(sent) < len(streams):
        await asyncio.sleep(0)
        most, before = max(most, len(sent) - before), len(sent)

    assert sent == list(range(50))
    assert most == 3


async def test_a_stream_that_leaves_takes_no_turn() -> None:
    send_limiter = SendLimiter(streams_a_pass=1)
    streams = [asyncio.create_task(send_limiter.turn()) for _ in range(20)]
    await asyncio.sleep(0)
    for stream in streams[1:-1]:
        stream.cancel()
    for stream in streams[1:-1]:
        with contextlib.suppress(asyncio.CancelledError):
            await stream
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert streams[-1].done()
