"""How much of everything a scenario does, where it does it, and what it finds."""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from faults.servers import Server

SEED = 20_240_501

# Chance may lose the same epoch's worker many times in a row, which is no
# reason here to give its job up.
PATIENT = "--max-attempts=1000"

# The shortest that the server accepts.
IMPATIENT = "--worker-silence-seconds=3"

# A scenario that has not done all by then leaves it at what it has done.
_MOST_SECONDS = 1_500

SHARED_FLAGS = (PATIENT, IMPATIENT)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The counts of every scenario."""

    name: str

    specs: int
    """Kinds of jobs."""

    epochs: int
    """Epochs of each."""

    jobs_at_once: int
    """Jobs that run, and jobs that wait, while things are killed and cut."""

    followers: int
    """Streams on each job whose connections are cut."""

    faults: int
    """Kinds of damage to checkpoints, disks and databases; the first of each are taken."""

    kills: int
    """Kills of a worker, the server, or both, at random moments."""

    recoveries: int
    """Kills of a worker whose time until training resumes is measured."""

    cuts: int
    """Connections that are cut while the client's library follows jobs over them."""

    cancellations: int
    """Calls that are cancelled on the connection of a live stream."""

    gateway_seconds: int
    """How long callers call through a gateway."""

    zombies: int
    """Older workers that live on beside the one that has the job."""

    silences: int
    """Workers that are stopped until the server gives them up for lost."""

    watchers: int
    """Streams that are open at once on one job."""

    watched_epochs: int
    """Epochs of that job."""

    disconnects: int
    """Connections that end abruptly."""

    submits: int
    """Jobs whose first training step is waited for."""

    jobs: int
    """Jobs over which the server's memory is watched."""

    warm_up_jobs: int
    """Jobs before its memory is first read."""


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
    """What a scenario is given.

    Attributes:
        scale: how much to do.
        folder: the scenario's own, for the data of its servers.
        dataset: the images to train on.
        say: reports the progress.
        shared: a server that runs already, with `SHARED_FLAGS`, for scenarios
            that need no other options; None: each starts its own.
        began: when, by the monotonic clock.
    """

    scale: Scale
    folder: Path
    dataset: Path
    say: Callable[[str], None] = field(default=lambda _: None)
    shared: Server | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def has_time(self) -> bool:
        """Whether more may be begun, so that the whole is over within half an hour."""
        return time.monotonic() - self.began < _MOST_SECONDS

    def server(self, *flags: str, folder: str = "server") -> Server:
        """A server of the scenario's own, to be started."""
        return Server(self.folder / folder, self.dataset, *flags)

    @contextmanager
    def serving(self, *flags: str) -> Iterator[Server]:
        """A server that runs: the shared one, or else one of the scenario's own."""
        if self.shared is not None:
            yield self.shared
            return
        with self.server(*flags) as server:
            yield server

    def random(self) -> random.Random:
        """Random numbers, the same in every run."""
        return random.Random(SEED)  # noqa: S311 - chance, not secrets


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What was measured against a bar.

    Attributes:
        bar: what is measured.
        required: at what it passes.
        measured: what it came to.
        ok: whether it passes.
        is_timing: whether it depends on how fast and how busy the machine is.
    """

    bar: str
    required: str
    measured: str
    ok: bool
    is_timing: bool = False


def none_of(bar: str, violations: Sequence[object], count: int) -> Figure:
    """The figure of something that must not happen in any of `count` cases."""
    shown = f": {'; '.join(str(item) for item in violations[:3])}" if violations else ""
    return Figure(
        bar=bar,
        required=f"0 of {count:,}",
        measured=f"{len(violations):,} of {count:,}{shown}",
        ok=not violations,
    )


def all_of(bar: str, wrong: Sequence[object], count: int) -> Figure:
    """The figure of something that must hold in all of `count` cases."""
    shown = f": not {'; '.join(str(item) for item in wrong[:3])}" if wrong else ""
    return Figure(
        bar=bar,
        required="all",
        measured=f"{count - len(wrong):,} of {count:,}{shown}",
        ok=not wrong and count > 0,
    )


def holds(bar: str, wrong: Sequence[str]) -> Figure:
    """The figure of something that either is so or is not."""
    return Figure(bar=bar, required="holds", measured="; ".join(wrong) or "holds", ok=not wrong)


def skipped(bar: str, why: str) -> Figure:
    """The figure of what cannot be done here."""
    return Figure(bar=bar, required="holds", measured=f"skipped: {why}", ok=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least this share of them does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
