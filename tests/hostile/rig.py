"""Attacks a server while an innocent caller uses it, stops the server, and judges the result."""

import math
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from hostile.attack import SWEEP, Attack, Site
from hostile.innocent import Latency, Sample
from hostile.processes import Memory, Process, attack_server, be_innocent
from leadline.client import Client
from leadline.server.settings import Settings
from support.servers import CLASSES, Launcher, LiveServer
from support.stores import fill_database
from support.wire import tiny_spec

# Class names that do harm if a page, a report or a table does not escape them.
HOSTILE_CLASSES = (
    "<img src=x onerror=alert(1)>",
    "'\"><svg onload=alert(1)>",
    "&lt;b&gt;",
    "=HYPERLINK(1)",
    "${7*7}{{7*7}}",
    "javascript:alert(1)",
    "%s%n",
    "[red]rich[-red]",
    "%00%2e%2e",
    "null",
)

TRANSPORTS: tuple[str, ...] = get_args(Settings.model_fields["transport"].annotation)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The durations, and the tolerance of bars on a busy machine.

    Attributes:
        is_long: whether attacks have their full size.
        seconds: the duration of an endless attack.
        most_seconds: the time limit of a finite attack.
        grace_seconds: the grace period of the server.
        patience: how long to wait for the innocent caller's last calls, in seconds.
        slack: the factor on bars in time.
        exit_seconds: the time beyond the grace period until the process exits: it sends statuses,
            and stops workers and threads.
    """

    is_long: bool
    seconds: float
    most_seconds: float
    grace_seconds: float
    patience: float
    slack: float
    exit_seconds: float

    def may_take(self, seconds: float) -> float:
        """Returns a bar in time with the tolerance."""
        return seconds * self.slack


SHORT = Scale(
    is_long=False,
    seconds=3,
    most_seconds=60,
    grace_seconds=2,
    patience=5,
    slack=20,
    exit_seconds=30,
)
LONG = Scale(
    is_long=True,
    seconds=15,
    most_seconds=300,
    grace_seconds=10,
    patience=10,
    slack=1,
    exit_seconds=4,
)

_EXIT_SECONDS = 60

_MOST_JOBS_OF_A_SWEEP = 1_000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The cost of an attack.

    Attributes:
        latency: the innocent caller's latencies by kind of call.
        failures: its calls without an answer, by status.
        memory_mib: the growth of the server.
        exit_seconds: from SIGTERM to its end; infinity if it had to be killed.
        tally: the statuses that the attacker received.
        wrong: descriptions of what must not happen.
    """

    attack: Attack
    transport: str
    scale: Scale
    latency: dict[str, Latency]
    failures: Counter[str]
    memory_mib: float
    exit_seconds: float
    tally: Counter[str]
    wrong: list[str]

    @property
    def misses(self) -> list[str]:
        """Returns the missed bars with their figures."""
        bar, scale = self.attack.bar, self.scale
        limits = (
            ("health p99 [s]", self.latency["health"].p99, scale.may_take(bar.health_ms / 1000)),
            ("encoded p99 [s]", self.latency["encoded"].p99, scale.may_take(bar.encoded_seconds)),
            ("memory [MiB]", self.memory_mib, bar.memory_mib),
            (
                "shutdown [s]",
                self.exit_seconds,
                scale.grace_seconds + scale.exit_seconds,
            ),
        )
        misses = [f"{what} {value:.1f} > {most:g}" for what, value, most in limits if value > most]
        if self.failures:
            misses.append(f"others' calls failed: {dict(self.failures)}")
        return [*misses, *self.wrong]


@dataclass(frozen=True)
class Prepared:
    """The initial state of every server in the suite: datasets, and a data directory with
    models."""

    data_dir: Path
    flags: tuple[str, ...]
    model: str
    victim: str
    image: bytes


def prepare(folder: Path, tiny: Path) -> Prepared:
    """Trains a model on `tiny`, and one on images whose classes have hostile names."""
    hostile = folder / "hostile-names"
    for split in ("train", "test"):
        for plain, name in zip(CLASSES, HOSTILE_CLASSES, strict=True):
            shutil.copytree(tiny / split / plain, hostile / split / name)
    flags = (f"--dataset=tiny={tiny}", f"--dataset=hostile={hostile}")
    launcher = Launcher(folder, "--port", "0", *flags)
    process = launcher.spawn()
    try:
        server = launcher.wait_ready(process)
        with Client(server.target) as client:
            models = [
                client.train(tiny_spec(epochs=2, dataset=name)).result().model
                for name in ("tiny", "hostile")
            ]
        server.stop()
    finally:
        process.kill()
        process.wait()
    image = next(tiny.glob("test/*/*.png")).read_bytes()
    return Prepared(launcher.data_dir, flags, models[0], models[1], image)


def run_attack(
    attack: Attack, transport: str, scale: Scale, prepared: Prepared, folder: Path
) -> Outcome:
    """Starts a server, attacks it, stops it during the attack; returns the cost."""
    shutil.copytree(prepared.data_dir, folder / "data")
    _write_history(folder / "data" / "leadline.db", attack.history[scale.is_long])
    launcher = Launcher(
        folder,
        *("--port", "0", "--spare-workers", "0"),
        *("--shutdown-grace-seconds", str(scale.grace_seconds)),
        *("--transport", transport),
        *prepared.flags,
        *attack.flags,
        wrapper=attack.wrapper,
    )
    process = launcher.spawn()
    try:
        server = launcher.wait_ready(process)
        return _attack(server, attack, transport, scale, prepared)
    finally:
        process.kill()
        process.wait()


def _write_history(database: Path, jobs: int) -> None:
    if jobs:
        in_sweep = min(jobs, _MOST_JOBS_OF_A_SWEEP)
        sweep_id = SWEEP.removeprefix("sweeps/")
        fill_database(database, in_sweep, sweep_id=sweep_id, prefix="h")
        fill_database(database, jobs - in_sweep + 1, epochs=51, prefix="i")


def _attack(
    server: LiveServer, attack: Attack, transport: str, scale: Scale, prepared: Prepared
) -> Outcome:
    site = Site(
        pid=server.process.pid,
        port=int(server.target.rpartition(":")[2]),
        metrics_url=server.metrics_url,
        folder=server.data_dir.parent,
        data_dir=server.data_dir,
        model=prepared.model,
        victim=prepared.victim,
        image=prepared.image,
        is_long=scale.is_long,
    )
    attacker = Process(attack_server, site, attack.name)
    innocent = Process(be_innocent, site, scale.patience)
    try:
        samples, memory_mib = _measure(server, attacker, innocent, attack, scale)
        exit_seconds, wrong = _stop(server)
        report = attacker.stop(scale.patience)
    finally:
        attacker.kill()
        innocent.kill()
    tally, said = report or (Counter(), ["the attacker's process gave no report"])
    kinds = {sample.kind for sample in samples}
    return Outcome(
        attack=attack,
        transport=transport,
        scale=scale,
        latency={
            kind: Latency.of([sample for sample in samples if sample.kind == kind])
            for kind in kinds
        },
        failures=Counter(sample.status for sample in samples if sample.status != "OK"),
        memory_mib=memory_mib,
        exit_seconds=exit_seconds,
        tally=tally,
        wrong=[*said, *wrong],
    )


def _measure(
    server: LiveServer, attacker: Process, innocent: Process, attack: Attack, scale: Scale
) -> tuple[list[Sample], float]:
    """Returns the innocent caller's samples since the attack's start, and the growth of memory."""
    attacker.wait_ready()
    innocent.wait_ready()
    innocent.start()
    time.sleep(1)  # connections, networks and caches exist before the attack starts
    memory = Memory(server.process.pid)
    began = time.monotonic()
    attacker.start()
    attacker.wait(scale.most_seconds if attack.is_finite else scale.seconds)
    time.sleep(max(0.0, began + 1 - time.monotonic()))  # each kind of call was made
    samples: list[Sample] = innocent.stop(scale.patience + 5) or []
    return [sample for sample in samples if sample.due >= began], memory.grown_mib()


def _stop(server: LiveServer) -> tuple[float, list[str]]:
    """Returns the seconds from SIGTERM to the server's exit, and errors in its log and status."""
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    try:
        status = server.process.wait(_EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        return math.inf, []
    seconds = time.monotonic() - began
    wrong = [] if status == 0 else [f"the server ended with status {status}"]
    faults = server.log.read_text(errors="replace").count("Traceback")
    return seconds, [*wrong, *([f"{faults} tracebacks in the log"] if faults else [])]
