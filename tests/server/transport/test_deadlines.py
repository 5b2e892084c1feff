"""Deadlines share timers, and none passes early."""

import asyncio
import time

from leadline.server.transport.deadlines import DeadlineTimers


class Call:
    def __init__(self) -> None:
        self.expired: float | None = None

    def expire(self) -> None:
        self.expired = time.monotonic()


async def test_deadlines_pass_after_their_time_and_not_before() -> None:
    timers, calls = DeadlineTimers(), [Call() for _ in range(40)]
    began = time.monotonic()
    for number, call in enumerate(calls):
        timers.add(call, began + number / 1_000)
    await asyncio.sleep(0.2)

    for number, call in enumerate(calls):
        assert call.expired is not None
        assert call.expired - began >= number / 1_000


async def test_a_call_that_has_ended_does_not_expire() -> None:
    timers, ended, other = DeadlineTimers(), Call(), Call()
    periods = [timers.add(call, time.monotonic() + 0.01) for call in (ended, other)]
    timers.discard(ended, periods[0])
    await asyncio.sleep(0.1)
    timers.discard(other, periods[1])  # has already expired

    assert ended.expired is None
    assert other.expired is not None


async def test_timers_are_shared_and_none_stays() -> None:
    timers, calls = DeadlineTimers(), [Call() for _ in range(1_000)]
    periods = [timers.add(call, time.monotonic() + 3_600) for call in calls]
    assert len(set(periods)) < 100
    for call, period in zip(calls, periods, strict=True):
        timers.discard(call, period)

    assert not timers._groups  # otherwise timers of distant deadlines would accumulate
