"""A few streams send at a time, and one that is stuck holds up nobody."""

import asyncio

import pytest

from leadline.server.api.send_limiter import SendLimiter


async def test_no_more_streams_send_at_a_time_than_there_are_slots() -> None:
    send_limiter = SendLimiter(slots=3, max_hold=60)
    inside, most = 0, 0

    async def send() -> None:
        nonlocal inside, most
        async with send_limiter.slot():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(send() for _ in range(50)))

    assert (inside, most) == (0, 3)


async def test_a_stuck_stream_is_overtaken() -> None:
    send_limiter = SendLimiter(slots=1, max_hold=0.01)
    may_go_on = asyncio.Event()

    async def get_stuck() -> None:
        async with send_limiter.slot():
            await may_go_on.wait()

    stuck = asyncio.create_task(get_stuck())
    await asyncio.sleep(0)
    async with send_limiter.slot():  # though the other is still inside
        may_go_on.set()
    await stuck

    # It has released its slot once, not twice.
    async with send_limiter.slot():
        second = asyncio.create_task(send_limiter.wait_to_close())
        await asyncio.sleep(0)
        assert not second.done()
    await second


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError])
async def test_a_slot_is_released_after_an_error(error: type[BaseException]) -> None:
    send_limiter = SendLimiter(slots=1, max_hold=60)

    with pytest.raises(error):
        async with send_limiter.slot():
            raise error

    async with send_limiter.slot():
        pass


async def test_streams_end_one_after_another() -> None:
    send_limiter = SendLimiter(slots=2)
    ended: list[int] = []

    async def end(number: int) -> None:
        await send_limiter.wait_to_close()
        ended.append(number)

    streams = [asyncio.create_task(end(number)) for number in range(9)]
    await asyncio.sleep(0)
    # No slot can be free again yet: timers run between passes of the event loop.
    ended_at_once = list(ended)
    await asyncio.gather(*streams)

    assert ended_at_once == [0, 1]
    assert ended == list(range(9))
