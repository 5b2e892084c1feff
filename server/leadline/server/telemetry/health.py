"""Probes the parts of the server repeatedly, to detect failures.

A part fails if it answers two probes in a row with an error, or leaves a probe
unanswered for several looks. The unit is looks, not seconds, so a pause of the whole
process is only one look. Under load a part answers late, because its probe waits
behind other work; the patience is longer than any such wait. The next answer ends
the failure.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

import structlog

_LOG = structlog.get_logger(__name__)

# Seconds between two looks at the probes.
LOOK_SECONDS = 2.0

_ERRORS_IN_A_ROW = 2


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Checks whether one part of the server answers.

    Attributes:
        part: the part's name.
        check: returns when the part has answered; raises the part's error.
        patience: how many looks the part may take to answer.
    """

    part: str
    check: Callable[[], Awaitable[None]]
    patience: int = 5


class HealthMonitor:
    """Repeats the probes, and reports which parts fail."""

    def __init__(
        self,
        probes: Sequence[Probe],
        *,
        on_change: Callable[[Collection[str]], Awaitable[None]],
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """Makes a monitor, which does nothing until `run`.

        Args:
            probes: one for each part.
            on_change: called with the names of the failing parts after each change.
            look_seconds: seconds between two looks.
        """
        self._watched = [_Watched(probe) for probe in probes]
        self._on_change = on_change
        self._look_seconds = look_seconds

    def failing(self) -> dict[str, bool]:
        """Whether each part fails, by its name."""
        return {watched.part: watched.is_failing for watched in self._watched}

    async def run(self) -> None:
        """Repeats the probes until it is cancelled."""
        try:
            while True:
                changed = [watched for watched in self._watched if watched.look()]
                if changed:
                    await self._on_change(
                        [part for part, is_failing in self.failing().items() if is_failing]
                    )
                await asyncio.sleep(self._look_seconds)
        finally:
            for watched in self._watched:
                watched.stop()


class _Watched:
    """A part, its probe in flight, and its last answers."""

    def __init__(self, probe: Probe) -> None:
        self.part = probe.part
        self.is_failing = False
        self._probe = probe
        self._answer: asyncio.Future[None] | None = None
        self._looks = 0
        self._errors = 0

    def look(self) -> bool:
        """Checks for the answer, and sends the next probe; returns whether the health changed."""
        before = self.is_failing
        if self._answer is None or self._answer.done():
            self._judge_answer()
            self._looks = 0
            self._answer = asyncio.ensure_future(self._probe.check())
        else:
            self._looks += 1
            if self._looks >= self._probe.patience:
                self._fail(f"it has not answered for {self._looks} looks")
        return self.is_failing != before

    def stop(self) -> None:
        """Stops waiting for the answer."""
        if self._answer is not None:
            self._answer.cancel()

    def _judge_answer(self) -> None:
        if self._answer is None:
            return
        error = None if self._answer.cancelled() else self._answer.exception()
        self._errors = self._errors + 1 if error else 0
        if error and self._errors >= _ERRORS_IN_A_ROW:
            self._fail(str(error) or type(error).__name__)
        elif not error and self.is_failing:
            self.is_failing = False
            _LOG.info("a part of the server answers again", part=self.part)

    def _fail(self, why: str) -> None:
        if not self.is_failing:
            self.is_failing = True
            _LOG.error("a part of the server fails: health says so", part=self.part, why=why)
