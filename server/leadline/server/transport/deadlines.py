"""Ends calls at their deadlines; many deadlines share a timer."""

import asyncio
import time
from typing import Protocol

# Calls whose deadlines are in the same period expire together, at its end.
_PERIOD_SECONDS = 0.005

# The event loop rounds delays to milliseconds.
_ROUNDING_SECONDS = 0.0005


class Expiring(Protocol):
    """A call, or another object with a deadline."""

    def expire(self) -> None:
        """Called once the deadline has passed."""


class DeadlineTimers:
    """The deadlines of the calls of an event loop.

    Almost every call ends before its deadline. A timer for each call would take more time than
    the rest of the work for its deadline.
    """

    def __init__(self) -> None:
        # By the number of the period; each group is in the order of arrival.
        self._groups: dict[int, tuple[dict[Expiring, None], asyncio.TimerHandle]] = {}

    def add(self, expiring: Expiring, deadline: float) -> int:
        """Adds a deadline by the monotonic clock; returns its period, for `discard`."""
        period = int(deadline / _PERIOD_SECONDS) + 1
        group = self._groups.get(period)
        if group is None:
            delay = period * _PERIOD_SECONDS - time.monotonic() + _ROUNDING_SECONDS
            timer = asyncio.get_running_loop().call_later(delay, self._expire, period)
            group = self._groups[period] = ({}, timer)
        group[0][expiring] = None
        return period

    def discard(self, expiring: Expiring, period: int) -> None:
        """Discards a deadline; cancels the timer if no other deadline of the period is left."""
        if period in self._groups:
            waiting, timer = self._groups[period]
            waiting.pop(expiring, None)
            if not waiting:
                del self._groups[period]
                timer.cancel()

    def _expire(self, period: int) -> None:
        waiting, _ = self._groups.pop(period)
        for expiring in waiting:
            expiring.expire()
