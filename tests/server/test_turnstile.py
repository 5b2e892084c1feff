"""A few streams send at a time, and one that is stuck holds up nobody."""

import asyncio

import pytest

from leadline.server.api.turnstile import Turnstile


async def test_no_more_pass_at_a_time_than_it_is_wide() -> None:
    turnstile = Turnstile(width=3, patience=60)
    inside, most = 0, 0

    async def send() -> None:
        nonlocal inside, most
        async with turnstile.passing():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(send() for _ in range(50)))

    assert (inside, most) == (0, 3)


async def test_one_that_is_stuck_is_passed_by() -> None:
    turnstile = Turnstile(width=1, patience=0.01)
    may_go_on = asyncio.Event()

    async def get_stuck() -> None:
        async with turnstile.passing():
            await may_go_on.wait()

    stuck = asyncio.create_task(get_stuck())
    await asyncio.sleep(0)
    async with turnstile.passing():  # though the other is still inside
        may_go_on.set()
    await stuck

    # It has given its place back once, not twice.
    async with turnstile.passing():
        second = asyncio.create_task(turnstile.leave())
        await asyncio.sleep(0)
        assert not second.done()
    await second


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError])
async def test_a_place_is_given_back_however_it_is_left(error: type[BaseException]) -> None:
    turnstile = Turnstile(width=1, patience=60)

    with pytest.raises(error):
        async with turnstile.passing():
            raise error

    async with turnstile.passing():
        pass


async def test_streams_end_one_after_another() -> None:
    turnstile = Turnstile(width=2)

    await asyncio.gather(*(turnstile.leave() for _ in range(9)))

    async with turnstile.passing():
        pass
