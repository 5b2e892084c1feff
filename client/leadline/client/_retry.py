"""Decides when to retry a call or a broken stream, and when to give up."""

import random
import time
from collections.abc import Callable

from grpc import StatusCode

from leadline.client._errors import RpcError

OnReconnect = Callable[[RpcError, float], None]
"""Called before each attempt to reconnect, with the error and the seconds until the attempt."""

CALL_ATTEMPTS = 4

FIRST_DELAY = 0.1
LAST_DELAY = 5.0

# The longest delay in seconds that a server can impose.
_LONGEST_ADVICE = 60.0

# A stream that lasted longer than this was connected, even without events,
# because connecting fails within 20 s.
_ATTACHED_SECONDS = 60.0

_TRANSPORT_CODES = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.CANCELLED,  # by a proxy: the SDK's own cancellation never gets here
        StatusCode.DEADLINE_EXCEEDED,  # by a proxy: streams have no deadline
        StatusCode.RESOURCE_EXHAUSTED,  # the server has too many streams
        StatusCode.ABORTED,
    }
)

# Either a connection cut within a message, or a bug of the server, which minutes
# of retries would hide.
_DOUBTFUL_CODES = frozenset({StatusCode.INTERNAL, StatusCode.UNKNOWN})
_DOUBTFUL_ATTEMPTS = 3


class Reconnection:
    """Decides about the next attempt to open a broken stream.

    Delays grow from 0.1 s to 5 s, with a random jitter of up to one half. So
    watchers do not all reconnect to a restarted server at once.
    """

    def __init__(
        self,
        timeout: float | None,
        *,
        on_reconnect: OnReconnect | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Allows an outage of `timeout` seconds; None for any length."""
        self._timeout = timeout
        self._on_reconnect = on_reconnect
        self._clock = clock
        self._jitter = jitter
        self._failures = 0
        self._broken_since: float | None = None
        self._attempt_began = clock()

    def began(self) -> None:
        """Records that an attempt begins."""
        self._attempt_began = self._clock()

    def heard(self) -> None:
        """Records that the stream delivered an event, which ends an outage."""
        self._failures = 0
        self._broken_since = None

    def delay(self, error: RpcError) -> float:
        """The seconds to wait before the next attempt.

        Raises:
            RpcError: `error`, if another attempt would not help, or the outage
                has lasted too long.
        """
        now = self._clock()
        if now - self._attempt_began > _ATTACHED_SECONDS:
            self.heard()
        self._failures += 1
        if self._broken_since is None:
            self._broken_since = now
        if not self._worth_trying(error) or self._given_up(now):
            raise error from None
        delay = self._next_delay(error)
        if self._on_reconnect is not None:
            self._on_reconnect(error, delay)
        return delay

    def _worth_trying(self, error: RpcError) -> bool:
        if error.code in _DOUBTFUL_CODES:
            return self._failures <= _DOUBTFUL_ATTEMPTS
        return error.code in _TRANSPORT_CODES

    def _given_up(self, now: float) -> bool:
        if self._timeout is None or self._broken_since is None:
            return False
        return now - self._broken_since >= self._timeout

    def _next_delay(self, error: RpcError) -> float:
        # The exponent is bounded, because a float would overflow after a thousand failures.
        longest = min(LAST_DELAY, FIRST_DELAY * 2.0 ** min(self._failures - 1, 10))
        return max(
            longest * (1 - self._jitter() / 2), min(error.retry_delay or 0.0, _LONGEST_ADVICE)
        )


class Attempts:
    """Decides about the next attempt of a call that is safe to repeat, within its timeout.

    All unary calls are safe to repeat, and submissions because of their request id.

    Attributes:
        failures: how many attempts have failed so far, including the last one.
    """

    def __init__(
        self,
        timeout: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Allows four attempts in `timeout` seconds."""
        self._clock = clock
        self._jitter = jitter
        self._deadline = clock() + timeout
        self.failures = 0

    def remaining(self) -> float:
        """The seconds that remain for the next attempt."""
        return max(0.0, self._deadline - self._clock())

    def delay(self, error: RpcError) -> float:
        """The seconds to wait before the next attempt.

        Raises:
            RpcError: `error`, after the last attempt, or if another would not
                help.
        """
        self.failures += 1
        delay = 0.2 * 2.0 ** (self.failures - 1) * (1 - self._jitter() / 2)
        is_last = self.failures >= CALL_ATTEMPTS or delay >= self.remaining()
        if is_last or error.code is not StatusCode.UNAVAILABLE:
            raise error from None
        return delay
