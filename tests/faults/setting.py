"""The scale, the surroundings and the figures of a scenario."""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from faults.servers import Server

SEED = 20_240_501

# Random kills may hit the same epoch many times in a row, and must not fail its job here.
PATIENT = "--max-attempts=1000"

# The shortest silence that the server accepts.
IMPATIENT = "--worker-silence-seconds=3"

# A scenario stops at this time, even if it has not done everything.
_MOST_SECONDS = 1_500

SHARED_FLAGS = (PATIENT, IMPATIENT)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The counts of every scenario."""

    name: str

    specs: int
    """The number of kinds of jobs."""

    epochs: int
    """Epochs of each."""

    jobs_at_once: int
    """Running jobs, and waiting jobs, during kills and cuts."""

    followers: int
    """Watched streams per job, whose connections are cut."""

    faults: int
    """Kinds of damage to checkpoints, disks and databases, from the start of each list."""

    kills: int
    """Kills of a worker, the server, or both, at random moments."""

    recoveries: int
    """Timed kills of a worker."""

    cuts: int
    """Cut connections on which the SDK watches jobs."""

    cancellations: int
    """Cancelled calls on the connection of a live stream."""

    gateway_seconds: int
    """How long callers use the gateway, in seconds."""

    rotations: int
    """Replaced certificates, for each transport."""

    zombies: int
    """Older workers that continue beside the current one."""

    silences: int
    """Workers that are stopped until they count as lost."""

    watchers: int
    """Concurrent streams on one job."""

    watched_epochs: int
    """Epochs of that job."""

    disconnects: int
    """Abrupt disconnects."""

    submits: int
    """Jobs whose time to the first training step is measured."""

    jobs: int
    """Jobs during which the server's memory is measured."""

    warm_up_jobs: int
    """Jobs before the first reading of its memory."""


SHORT = Scale(
    name="short",
    specs=1,
    epochs=8,
    jobs_at_once=1,
    followers=4,
    faults=1,
    kills=2,
    recoveries=1,
    cuts=15,
    cancellations=1_000,
    gateway_seconds=4,
    rotations=3,
    zombies=1,
    silences=1,
    watchers=60,
    watched_epochs=12,
    disconnects=300,
    submits=1,
    jobs=2,
    warm_up_jobs=0,
)
LONG = Scale(
    name="long",
    specs=5,
    epochs=16,
    jobs_at_once=2,
    followers=6,
    faults=99,
    kills=300,
    recoveries=100,
    cuts=2_000,
    cancellations=10_000,
    gateway_seconds=300,
    rotations=50,
    zombies=180,
    silences=20,
    watchers=1_000,
    watched_epochs=60,
    disconnects=10_000,
    submits=30,
    jobs=200,
    warm_up_jobs=20,
)
SCALES = {scale.name: scale for scale in (SHORT, LONG)}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The surroundings of a scenario.

    Attributes:
        scale: the counts.
        folder: the scenario's folder, for the data of its servers.
        dataset: the images to train on.
        say: prints progress.
        shared: a running server with `SHARED_FLAGS`, for scenarios without other options; None:
            each scenario starts its own.
        began: the start, by the monotonic clock.
    """

    scale: Scale
    folder: Path
    dataset: Path
    say: Callable[[str], None] = field(default=lambda _: None)
    shared: Server | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def has_time(self) -> bool:
        """Whether there is time for more, so that the scenario ends within half an hour."""
        return time.monotonic() - self.began < _MOST_SECONDS

    def server(self, *flags: str, folder: str = "server") -> Server:
        """Returns a new server for the scenario, not started."""
        return Server(self.folder / folder, self.dataset, *flags)

    @contextmanager
    def serving(self, *flags: str) -> Iterator[Server]:
        """Yields a running server: the shared one, or a new one."""
        if self.shared is not None:
            yield self.shared
            return
        with self.server(*flags) as server:
            yield server

    def random(self) -> random.Random:
        """Returns a random generator with a fixed seed."""
        return random.Random(SEED)  # noqa: S311 - chance, not secrets


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measurement and its bar.

    Attributes:
        bar: what is measured.
        required: the value that passes.
        measured: the measured value.
        ok: whether it passes.
        is_timing: whether it depends on the speed and the load of the machine.
    """

    bar: str
    required: str
    measured: str
    ok: bool
    is_timing: bool = False


def none_of(bar: str, violations: Sequence[object], count: int) -> Figure:
    """Returns the figure of faults that must not occur in any of `count` cases."""
    shown = f": {'; '.join(str(item) for item in violations[:3])}" if violations else ""
    return Figure(
        bar=bar,
        required=f"0 of {count:,}",
        measured=f"{len(violations):,} of {count:,}{shown}",
        ok=not violations,
    )


def all_of(bar: str, wrong: Sequence[object], count: int) -> Figure:
    """Returns the figure of a condition that must hold in all of `count` cases."""
    shown = f": not {'; '.join(str(item) for item in wrong[:3])}" if wrong else ""
    return Figure(
        bar=bar,
        required="all",
        measured=f"{count - len(wrong):,} of {count:,}{shown}",
        ok=not wrong and count > 0,
    )


def holds(bar: str, wrong: Sequence[str]) -> Figure:
    """Returns the figure of a condition."""
    return Figure(bar=bar, required="holds", measured="; ".join(wrong) or "holds", ok=not wrong)


def skipped(bar: str, why: str) -> Figure:
    """Returns the figure of a skipped measurement."""
    return Figure(bar=bar, required="holds", measured=f"skipped: {why}", ok=True)


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
