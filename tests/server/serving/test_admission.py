"""The limit on requests in flight, and the order of waiting ones."""

import asyncio

import pytest

from leadline.server.errors import ResourceExhaustedError
from leadline.server.serving.predictor import AdmissionLimiter


async def test_one_too_many_is_refused_until_a_place_is_free() -> None:
    limiter = AdmissionLimiter(2)
    await limiter.acquire(wait=False)
    await limiter.acquire(wait=False)

    with pytest.raises(ResourceExhaustedError) as caught:
        await limiter.acquire(wait=False)

    assert caught.value.reason == "TOO_MANY_PREDICTIONS"
    assert caught.value.retry_after
    limiter.release()
    await limiter.acquire(wait=False)
    assert limiter.in_flight == 2


async def test_the_patient_are_served_in_the_order_of_their_coming() -> None:
    limiter, served = AdmissionLimiter(1), list[int]()
    await limiter.acquire(wait=True)

    async def wait(number: int) -> None:
        await limiter.acquire(wait=True)
        served.append(number)
        limiter.release()

    waiting = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    limiter.release()
    await asyncio.gather(*waiting)

    assert served == [0, 1, 2, 3, 4]
    assert limiter.in_flight == 0


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_place_is_not_lost_to_one_who_leaves_while_it_waits(when: str) -> None:
    limiter = AdmissionLimiter(1)
    await limiter.acquire(wait=True)
    gone = asyncio.create_task(limiter.acquire(wait=True))
    await asyncio.sleep(0)

    # After: the request is admitted, but its task has not run yet.
    for step in (
        (gone.cancel, limiter.release) if when == "before" else (limiter.release, gone.cancel)
    ):
        step()
    with pytest.raises(asyncio.CancelledError):
        await gone

    assert limiter.in_flight == 0
    await limiter.acquire(wait=False)
