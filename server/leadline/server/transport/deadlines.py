"""Ends calls at their deadlines, of which many share a timer."""

import asyncio
import time
from typing import Protocol

# Deadlines within a period end together, at its end.
_PERIOD_SECONDS = 0.005

# The event loop rounds to milliseconds.
_ROUNDING_SECONDS = 0.0005


class Expiring(Protocol):
    """What has a deadline."""

    def expire(self) -> None:
        """Called once the deadline has passed."""


class DeadlineTimers:
    """The deadlines of an event loop's calls.

    Hardly any deadline passes before its call has ended. A timer for each would take more
    time than all else that a deadline needs.
    """

    def __init__(self) -> None:
        # By the number of their period, in the order of arrival.
        self._groups: dict[int, tuple[dict[Expiring, None], asyncio.TimerHandle]] = {}

    def add(self, expiring: Expiring, deadline: float) -> int:
        """Notes a deadline by the monotonic clock; returns its period, for `discard`."""
        period = int(deadline / _PERIOD_SECONDS) + 1
        group = self._groups.get(period)
        if group is None:
            delay = period * _PERIOD_SECONDS - time.monotonic() + _ROUNDING_SECONDS
            timer = asyncio.get_running_loop().call_later(delay, self._expire, period)
            group = self._groups[period] = ({}, timer)
        group[0][expiring] = None
        return period

    def discard(self, expiring: Expiring, period: int) -> None:
        """Forgets a deadline, and the timer with the last one of its period."""
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
