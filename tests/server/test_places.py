"""Requests in work are bounded; who is patient waits in turn."""

import asyncio

import pytest

from leadline.server.errors import ResourceExhaustedError
from leadline.server.serving.predictor import Places


async def test_one_too_many_is_refused_until_a_place_is_free() -> None:
    places = Places(2)
    await places.take(patient=False)
    await places.take(patient=False)

    with pytest.raises(ResourceExhaustedError) as caught:
        await places.take(patient=False)

    assert caught.value.reason == "TOO_MANY_PREDICTIONS"
    assert caught.value.retry_after
    places.leave()
    await places.take(patient=False)
    assert places.taken == 2


async def test_the_patient_are_served_in_the_order_of_their_coming() -> None:
    places, served = Places(1), list[int]()
    await places.take(patient=True)

    async def wait(number: int) -> None:
        await places.take(patient=True)
        served.append(number)
        places.leave()

    waiting = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    places.leave()
    await asyncio.gather(*waiting)

    assert served == [0, 1, 2, 3, 4]
    assert places.taken == 0


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_place_is_not_lost_to_one_who_leaves_while_it_waits(when: str) -> None:
    places = Places(1)
    await places.take(patient=True)
    gone = asyncio.create_task(places.take(patient=True))
    await asyncio.sleep(0)

    # After: the place is its already, but it does not know yet.
    for step in (gone.cancel, places.leave) if when == "before" else (places.leave, gone.cancel):
        step()
    with pytest.raises(asyncio.CancelledError):
        await gone

    assert places.taken == 0
    await places.take(patient=False)
