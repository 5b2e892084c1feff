"""A few streams send at a time, and one that is stuck holds up nobody."""

import asyncio

import pytest

from leadline.server.api.send_limiter import SendLimiter


async def test_no_more_pass_at_a_time_than_it_is_wide() -> None:
    send_limiter = SendLimiter(width=3, patience=60)
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


async def test_one_that_is_stuck_is_passed_by() -> None:
    send_limiter = SendLimiter(width=1, patience=0.01)
    may_go_on = asyncio.Event()

    async def get_stuck() -> None:
        async with send_limiter.slot():
            await may_go_on.wait()

    stuck = asyncio.create_task(get_stuck())
    await asyncio.sleep(0)
    async with send_limiter.slot():  # though the other is still inside
        may_go_on.set()
    await stuck

    # It has given its place back once, not twice.
    async with send_limiter.slot():
        second = asyncio.create_task(send_limiter.wait_to_close())
        await asyncio.sleep(0)
        assert not second.done()
    await second


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError])
async def test_a_place_is_given_back_however_it_is_left(error: type[BaseException]) -> None:
    send_limiter = SendLimiter(width=1, patience=60)

    with pytest.raises(error):
        async with send_limiter.slot():
            raise error

    async with send_limiter.slot():
        pass


async def test_streams_end_one_after_another() -> None:
    send_limiter = SendLimiter(width=2)

    await asyncio.gather(*(send_limiter.wait_to_close() for _ in range(9)))

    async with send_limiter.slot():
        pass
