"""Measures what callers use at a time: calls in flight, and predictions a second."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from leadline.server.access.quotas import Limits, Quotas, SharedLimits, exceeded, refused
from leadline.server.identity import Identity

_RETRY_SECONDS = 1.0

# In place of a name: all callers together.
_TOTAL = ""


class TokenBucket:
    """Allows `rate` events a second, as many at once as in one second, but at least one.

    Attributes:
        rate: events a second.
    """

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.capacity = max(rate, 1.0)
        self._level = self.capacity
        self._time = now

    def level(self, now: float) -> float:
        """How many events are allowed now."""
        self._level = min(self.capacity, self._level + (now - self._time) * self.rate)
        self._time = now
        return self._level

    def seconds_until(self, count: int, now: float) -> float:
        """Seconds until `count` events are allowed."""
        return max(0.0, (count - self.level(now)) / self.rate)

    def take(self, count: int) -> None:
        """Counts events that are allowed."""
        self._level -= count


class UsageMeter:
    """Counts the calls and the predictions of identities, and holds them to the quotas.

    Only for the event loop, so a check and its count are one step. Callers without a name have
    no limits: health checks, and all callers of a server without authentication.
    """

    def __init__(
        self,
        quotas: Callable[[], Quotas],
        *,
        processes: int = 1,
        number: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes a meter.

        Args:
            quotas: returns the quotas in force.
            processes: how many processes of the server share each limit.
            number: the number of this process, from 0.
            now: the clock, in seconds.
        """
        self._quotas = quotas
        self._processes = processes
        self._number = number
        self._now = now
        self._calls: Counter[str] = Counter()
        self._buckets: dict[str, TokenBucket] = {}
        self._limits: dict[Identity, Limits] = {}
        self._of: Quotas | None = None

    def calls(self, name: str) -> int:
        """The calls in flight of an identity; of all with ""."""
        return self._calls[name]

    def predictions(self, name: str) -> float | None:
        """The predictions of the last second of an identity, or of all; None without a limit."""
        bucket = self._buckets.get(name)
        return None if bucket is None else bucket.capacity - bucket.level(self._now())

    def limits(self, identity: Identity) -> Limits:
        """The limits of an identity."""
        quotas = self._quotas()
        if quotas is not self._of:  # the access file has changed
            self._of = quotas
            self._limits.clear()
        limits = self._limits.get(identity)
        if limits is None:
            limits = self._limits[identity] = quotas.of(identity)
        return limits

    def begin(self, identity: Identity) -> Callable[[], None] | None:
        """Counts a call; returns what ends it, None for a caller that is not counted.

        Raises:
            ResourceExhaustedError: the caller, or all together, have too many calls in flight.
        """
        name = identity.name
        if not name:
            return None
        for who, limits in ((name, self.limits(identity)), (_TOTAL, self._quotas().total)):
            limit = limits.calls_in_flight
            if limit is not None and self._calls[who] >= self._share(limit):
                raise exceeded(
                    "calls_in_flight",
                    self._share(limit),
                    self._calls[who],
                    who=who,
                    advice="end a call first",
                    retry_after=_RETRY_SECONDS,
                )
        self._calls[name] += 1
        self._calls[_TOTAL] += 1

        def end() -> None:
            self._calls[_TOTAL] -= 1
            self._calls[name] -= 1
            if not self._calls[name]:
                del self._calls[name]

        return end

    def check_upload(self, identity: Identity, size: int) -> None:
        """Checks the size of a request in bytes.

        Raises:
            ResourceExhaustedError: it is too large.
        """
        limit = self.limits(identity).upload_bytes if identity.name else None
        if limit is not None and size > limit:
            raise refused(
                "upload_bytes", limit, size, who=identity.name, advice="send less at a time"
            )

    def is_limited(self, identity: Identity) -> bool:
        """Whether a quota limits the predictions of a caller."""
        return bool(identity.name) and (
            self.limits(identity).predictions_per_second is not None
            or self._quotas().total.predictions_per_second is not None
        )

    def predict(self, identity: Identity, images: int) -> None:
        """Counts images to classify.

        Raises:
            ResourceExhaustedError: the caller, or all together, predict too much a second.
        """
        seconds, who = self._take(identity, images)
        if seconds:
            bucket = self._buckets[who]
            raise exceeded(
                "predictions_per_second",
                bucket.rate,
                bucket.capacity - bucket.level(self._now()),
                who=who,
                advice=f"classify {images} more in {seconds:.1f} seconds",
                retry_after=seconds,
            )

    async def predict_when_allowed(self, identity: Identity, images: int) -> None:
        """Does what `predict` does, but waits until the quota allows it.

        Raises:
            ResourceExhaustedError: the images are more than the quota ever allows at once.
        """
        while seconds := self._take(identity, images)[0]:  # noqa: ASYNC110 - time fills a bucket
            await asyncio.sleep(seconds)

    def _take(self, identity: Identity, images: int) -> tuple[float, str]:
        """Counts images if they are allowed; else returns the seconds until then, and by whom."""
        images = max(images, 0)  # a caller may send any shape
        buckets = self._limited(identity, images)
        now = self._now()
        longest = max(
            ((bucket.seconds_until(images, now), who) for who, bucket in buckets),
            default=(0.0, _TOTAL),
        )
        if not longest[0]:
            for _, bucket in buckets:
                bucket.take(images)
        return longest

    def _limited(self, identity: Identity, images: int) -> list[tuple[str, TokenBucket]]:
        """The buckets from which a prediction takes.

        Raises:
            ResourceExhaustedError: a bucket never has as much.
        """
        name = identity.name
        if not name:
            return []
        buckets = []
        for who, limits in ((name, self.limits(identity)), (_TOTAL, self._quotas().total)):
            bucket = self._bucket(who, limits)
            if bucket is not None:
                buckets.append((who, bucket))
                if images > bucket.capacity:
                    raise refused(
                        "predictions_per_second",
                        bucket.rate,
                        images,
                        who=who,
                        advice="send fewer images at a time",
                    )
        return buckets

    def _bucket(self, who: str, limits: SharedLimits) -> TokenBucket | None:
        rate = limits.predictions_per_second
        if rate is None:
            self._buckets.pop(who, None)
            return None
        rate /= self._processes
        bucket = self._buckets.get(who)
        if bucket is None or bucket.rate != rate:
            bucket = self._buckets[who] = TokenBucket(rate, self._now())
        return bucket

    def _share(self, limit: int) -> int:
        """The part of a limit that this process may use; all parts add up to the limit."""
        return limit // self._processes + (self._number < limit % self._processes)
